// Both sides of a container. The kernel sends finished, escaped HTML, which is patched in place: what was opened stays so.
function patch(from, to) {
  const olds = [...from.childNodes], news = [...to.childNodes];
  news.forEach((wanted, i) => {
    const there = olds[i];
    if (!there) from.append(wanted);
    else if (there.nodeName !== wanted.nodeName) there.replaceWith(wanted);
    else if (wanted.nodeType !== 1) { if (there.data !== wanted.data) there.data = wanted.data; }
    else {
      for (const { name, value } of wanted.attributes) if (name !== 'open' && there.getAttribute(name) !== value) there.setAttribute(name, value);
      patch(there, wanted);
    }
  });
  for (const spare of olds.slice(news.length)) spare.remove();
}

function render({ model, el }) {
  const card = document.createElement('div');
  card.className = 'nbc nbx';
  card.setAttribute('role', 'group');
  card.setAttribute('aria-label', model.get('label'));
  el.append(card);
  const show = () => {
    const template = document.createElement('template');  // inert: nothing in it loads or runs
    template.innerHTML = model.get('inside');
    patch(card, template.content);
  };
  model.on('change:inside', show);
  card.addEventListener('keydown', (event) => event.stopPropagation());  // Lab would take Enter and blanks as commands
  show();
  return () => model.off('change:inside', show);
}

export default { render };
