// What all widgets share. What comes from the kernel as HTML is finished and escaped there; it is patched in place, so
// that focus, selection and scrolling survive. What a program wrote only ever becomes text nodes.
function make(tag, name = '', attributes = {}, ...inside) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...inside);
  return node;
}

function button(label, act) {
  const node = make('button', '', { type: 'button' });
  node.textContent = label;
  node.addEventListener('click', act);
  return node;
}

// Rows that have a key stay their own: who is at a button of one does not find another one's under the finger.
function patchRows(from, to) {
  let at = from.firstChild;
  for (const wanted of [...to.children]) {
    const there = [...from.children].find((each) => each.dataset.key === wanted.dataset.key);
    const isAhead = there && (at === there || at?.compareDocumentPosition(there) & Node.DOCUMENT_POSITION_FOLLOWING);
    if (!isAhead) { there?.remove(); from.insertBefore(wanted, at); continue; }
    while (at !== there) { const gone = at; at = at.nextSibling; gone.remove(); }
    patch(there, wanted);
    at = there.nextSibling;
  }
  while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
}

// What somebody opened or closed stays so.
function patch(from, to) {
  if (to.firstElementChild?.dataset.key !== undefined) { patchRows(from, to); return; }
  const olds = [...from.childNodes], news = [...to.childNodes];
  news.forEach((wanted, i) => {
    const there = olds[i];
    if (!there) from.append(wanted);
    else if (there.nodeName !== wanted.nodeName) there.replaceWith(wanted);
    else if (wanted.nodeType !== 1) { if (there.data !== wanted.data) there.data = wanted.data; }
    else {
      for (const { name } of [...there.attributes]) if (!wanted.hasAttribute(name) && name !== 'open') there.removeAttribute(name);
      for (const { name, value } of wanted.attributes) if (name !== 'open' && there.getAttribute(name) !== value) there.setAttribute(name, value);
      if (!there.classList.contains('nbc-since') || wanted.firstChild) patch(there, wanted);
    }
  });
  for (const spare of olds.slice(news.length)) spare.remove();
}

// A card ends as HTML in its place, perhaps after a still view of its own, and in both everything is folded: what somebody
// opened is opened there again, once. Given are the summaries that were open, the card, and what it lay in, from the inside out.
function reopen(summaries, card, around) {
  const place = around.findLast((node) => node.isConnected), known = new WeakSet();
  if (!place || !summaries.size) return;
  const open = () => {
    for (const node of place.querySelectorAll('.nbc details > summary')) {
      if (card.contains(node) || known.has(node) || !summaries.has(node.textContent)) continue;
      known.add(node);
      node.parentElement.open = true;
    }
  };
  open();
  const watch = new MutationObserver(open);
  watch.observe(place, { childList: true, subtree: true });
  setTimeout(() => watch.disconnect(), 5000);
}

// The output that a card is in, whatever that is made of; no cell, and nothing of others.
function ancestors(node) {
  const above = [];
  for (let each = node.parentElement; each && above.length < 4; each = each.parentElement) above.push(each);
  return above;
}

function fill(node, html) {
  const template = document.createElement('template');  // inert: nothing in it loads or runs
  template.innerHTML = html;
  // A published port is one of the kernel's machine: where the page comes from elsewhere, it leads astray.
  if (!['localhost', '127.0.0.1', '[::1]'].includes(location.hostname))
    for (const link of template.content.querySelectorAll('a')) link.replaceWith(...link.childNodes);
  patch(node, template.content);
  node.hidden = !node.firstChild;
}

// Times as the kernel says them (words.duration).
function duration(seconds) {
  const s = Math.max(0, seconds);
  if (s < 9.95) return s >= 0.995 ? `${s.toFixed(1)} s` : `${s.toFixed(2)} s`;
  if (s < 59.5) return `${s.toFixed(0)} s`;
  const minutes = Math.floor(Math.round(s) / 60), hours = Math.floor(minutes / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(s) % 60} s`;
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

// Below ten seconds tenths are seen to pass, later seconds.
function count(root, skew) {
  let handle = 0;
  const tick = () => {
    let next = 1000;
    for (const node of root.querySelectorAll('.nbc-since')) {
      const seconds = Date.now() / 1000 - skew - Number(node.dataset.since), text = duration(seconds);
      if (seconds < 9.95) next = 200;
      if (node.textContent !== text) node.textContent = text;
    }
    handle = setTimeout(tick, next);
  };
  tick();
  return { now: () => { clearTimeout(handle); tick(); }, stop: () => clearTimeout(handle) };
}
