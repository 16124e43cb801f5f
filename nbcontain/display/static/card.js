// A live card. The kernel sends finished, escaped HTML for head and body, which is patched in place so that
// focus, selection and scrolling survive; what a program wrote only ever becomes text nodes.
const KEEP = 200;
const CLASSES = /^(nbc-(bold|dim|italic|underline|strike|inverse|(fg|bg)\d\d?)( |$))*$/;

function make(tag, name, attributes = {}) {
  const node = document.createElement(tag);
  node.className = name;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function patch(from, to) {
  const olds = [...from.childNodes], news = [...to.childNodes];
  news.forEach((wanted, i) => {
    const there = olds[i];
    if (!there) from.append(wanted);
    else if (there.nodeName !== wanted.nodeName) there.replaceWith(wanted);
    else if (wanted.nodeType !== 1) { if (there.data !== wanted.data) there.data = wanted.data; }
    else {
      for (const { name } of [...there.attributes]) if (!wanted.hasAttribute(name) && name !== 'open') there.removeAttribute(name);
      for (const { name, value } of wanted.attributes) if (there.getAttribute(name) !== value) there.setAttribute(name, value);
      patch(there, wanted);
    }
  });
  for (const spare of olds.slice(news.length)) spare.remove();
}

function fill(node, html) {
  const template = document.createElement('template');  // inert: nothing in it loads or runs
  template.innerHTML = html;
  patch(node, template.content);
}

function draw(line) {  // [source, [text, classes]...]
  const node = make('div', { stderr: 'nbc-err', note: 'nbc-note' }[line[0]] ?? '');
  for (const [text, classes] of line.slice(1)) {
    if (!classes || !CLASSES.test(classes)) node.append(document.createTextNode(text));
    else { const span = make('span', classes); span.textContent = text; node.append(span); }
  }
  if (!node.firstChild) node.append(document.createTextNode('\u200b'));
  return node;
}

// The model keeps the tail, so that a second view of it starts where the first one is.
function initialize({ model }) {
  const take = () => {
    const { from, lines, begun } = model.get('delta');
    const tail = model.get('tail');
    const known = tail.lines ?? [];
    const joined = (from === tail.end ? known.concat(lines) : lines).slice(-KEEP);
    model.set('tail', { end: from + lines.length, lines: joined, begun });
  };
  model.on('change:delta', take);
  return () => model.off('change:delta', take);
}

function render({ model, el }) {
  const card = make('div', 'nbc', { role: 'group' });
  const top = make('div', 'nbc-top'), head = make('div', 'nbc-head'), actions = make('div', 'nbc-actions');
  const body = make('div', 'nbc-body'), gone = make('div', 'nbc-gone', { role: 'status' });
  const log = make('div', 'nbc-log', { role: 'log', 'aria-live': 'off', tabindex: '0' });
  const spoken = make('span', 'nbc-hidden', { role: 'status' });
  top.append(head, actions);
  card.append(top, spoken, body, log, gone);
  el.append(card);

  const buttons = new Map();
  const showHead = () => fill(head, model.get('head'));
  const showBody = () => fill(body, model.get('body'));
  const showLabel = () => {
    card.setAttribute('aria-label', model.get('label'));
    log.setAttribute('aria-label', model.get('log_label') || 'output');
    if (spoken.textContent !== model.get('label')) spoken.textContent = model.get('label');  // said when the state changes
  };
  const showActions = () => {
    const wanted = model.get('actions');
    for (const [id, button] of buttons) if (!wanted.some((a) => a.id === id)) { button.remove(); buttons.delete(id); }
    for (const action of wanted) {
      let button = buttons.get(action.id);
      if (!button) {
        button = make('button', '', { type: 'button' });
        button.addEventListener('click', () => press(action.id));
        buttons.set(action.id, button);
        actions.append(button);
      }
      // aria-disabled and not disabled: a disabled button loses the keyboard's focus.
      button.setAttribute('aria-disabled', String(!action.enabled));
      if (!button.classList.contains('nbc-sure')) button.textContent = action.label;
      button.setAttribute('aria-label', `${button.textContent} ${action.about}`.trim());
    }
  };
  const press = (id) => {
    const action = model.get('actions').find((a) => a.id === id), button = buttons.get(id);
    if (!action?.enabled) return;
    const calm = () => { button.classList.remove('nbc-sure'); showActions(); };
    if (action.confirm && !button.classList.contains('nbc-sure')) {
      button.classList.add('nbc-sure');
      button.textContent = action.confirm;
      button.setAttribute('aria-label', `${action.confirm} ${action.about}`);
      setTimeout(calm, 4000);
      return;
    }
    calm();
    model.send({ action: id });
    button.setAttribute('aria-disabled', 'true');
    setTimeout(showActions, 1000);  // the kernel says before then what came of it; if not, nothing has changed
  };

  let end = 0, begun = [], stick = true;
  // Asked when the user scrolls and not when lines come: a window that gets narrower moves the end away, too.
  const onScroll = () => { stick = log.scrollTop + log.clientHeight >= log.scrollHeight - 12; };
  log.addEventListener('scroll', onScroll, { passive: true });
  const more = make('div', 'nbc-more');
  const showLog = () => {
    const tail = model.get('tail'), lines = tail.lines ?? [];
    const fresh = Math.max(0, tail.end - end);
    begun.forEach((node) => node.remove());
    if (fresh >= lines.length) log.replaceChildren();
    for (const line of lines.slice(fresh >= lines.length ? 0 : lines.length - fresh)) log.append(draw(line));
    end = tail.end;
    more.remove();
    while (log.childElementCount > KEEP) log.firstChild.remove();
    const hidden = tail.end - log.childElementCount;
    if (hidden > 0) {
      more.textContent = `… ${hidden.toLocaleString('en').replace(/,/g, '\u202f')} earlier line${hidden > 1 ? 's' : ''}`
        + (model.get('whole_log') ? ` · ${model.get('whole_log')}` : '');
      log.prepend(more);
    }
    begun = (tail.begun ?? []).map(draw);
    log.append(...begun);
    if (stick) log.scrollTop = log.scrollHeight;
  };
  const showGone = () => { gone.textContent = 'The kernel is gone: this is the last that was seen.'; model.set('actions', []); showActions(); };

  const wired = [['change:head', showHead], ['change:body', showBody], ['change:actions', showActions],
    ['change:label', showLabel], ['change:tail', showLog], ['comm_live_update', showGone]];
  for (const [event, handler] of wired) model.on(event, handler);
  showLabel(); showHead(); showBody(); showActions(); showLog();
  log.scrollTop = log.scrollHeight;
  // Lab would take letters and Enter as commands for the cell.
  const keep = (event) => event.stopPropagation();
  card.addEventListener('keydown', keep);
  return () => { for (const [event, handler] of wired) model.off(event, handler); };
}

export default { initialize, render };
