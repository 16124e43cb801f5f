// Both sides of a container, as the kernel draws them.
function render({ model, el }) {
  const card = make('div', 'nbc nbx', { role: 'group', 'aria-label': model.get('label') });
  el.append(card);
  const show = () => fill(card, model.get('inside'));
  model.on('change:inside', show);
  card.addEventListener('keydown', (event) => event.stopPropagation());  // Lab would take Enter and blanks as commands
  show();
  return () => model.off('change:inside', show);
}

export default { render };
