// A live card: who it is about, what it uses, what can be done, what it says.
function initialize({ model }) {
  model.set('skew', Date.now() / 1000 - model.get('now'));
  return keepTail(model);
}

function render({ model, el }) {
  const card = make('div', 'nbc', { role: 'group' });
  const top = make('div', 'nbc-top'), head = make('div', 'nbc-head'), actions = make('div', 'nbc-actions');
  const meters = make('div'), body = make('div', 'nbc-body'), log = make('div', 'nbc-log-area');
  const drawer = make('section', 'nbc-drawer'), gone = make('div', 'nbc-gone', { role: 'status' });
  const line = make('div', 'nbc-command', { 'aria-hidden': 'true' });
  const spoken = make('span', 'nbc-hidden', { role: 'status' });
  top.append(head, actions);
  card.append(top, spoken, meters, body, log, drawer, line, gone);
  el.append(card);
  const clock = count(card, model.get('skew') ?? 0);

  const buttons = new Map();
  const showHead = () => { fill(head, model.get('head')); clock.now(); };
  const showMeters = () => fill(meters, model.get('meters'));
  const showBody = () => {
    const hadFocus = body.contains(document.activeElement);
    fill(body, model.get('body'));
    clock.now();
    if (hadFocus && !body.contains(document.activeElement)) stay();  // its row is gone
  };
  // The keyboard stays in the card: where the next thing to do is.
  const stay = () => (buttons.get(lately) ?? buttons.values().next().value ?? card).focus();
  const showLabel = () => {
    card.setAttribute('aria-label', model.get('label'));
    if (spoken.textContent !== model.get('label')) spoken.textContent = model.get('label');  // said when the state changes
  };
  // What one would type instead: of the button that is looked at, then of the one that was pressed.
  let pressed = '', lately = '';
  const showCommand = (command) => {
    const text = command || pressed || model.get('command');
    line.textContent = text ? `≡ ${text}` : '';
    line.hidden = !text;
  };
  const showActions = () => {
    const wanted = model.get('actions');
    const hadFocus = [...buttons].find(([, node]) => node === document.activeElement)?.[0];
    for (const [id, node] of buttons) if (!wanted.some((a) => a.id === id)) { node.remove(); buttons.delete(id); }
    wanted.forEach((action, place) => {
      let node = buttons.get(action.id);
      if (!node) {
        node = button('', () => press(action.id));
        const command = () => model.get('actions').find((a) => a.id === action.id)?.command;
        for (const event of ['mouseenter', 'focus']) node.addEventListener(event, () => showCommand(command()));
        for (const event of ['mouseleave', 'blur']) node.addEventListener(event, () => showCommand());
        buttons.set(action.id, node);
      }
      if (actions.children[place] !== node) actions.insertBefore(node, actions.children[place] ?? null);
      // aria-disabled and not disabled: a disabled button loses the keyboard's focus.
      node.setAttribute('aria-disabled', String(!action.enabled));
      if (!node.classList.contains('nbc-sure') && node.textContent !== action.label) node.textContent = action.label;
      node.setAttribute('aria-label', `${node.textContent} ${action.about}`.trim());
      node.setAttribute('aria-description', action.command ?? '');
    });
    if (hadFocus && !buttons.has(hadFocus)) stay();
    showCommand();
  };
  const press = (id) => {
    const action = model.get('actions').find((a) => a.id === id), node = buttons.get(id);
    if (!action?.enabled) return;
    const calm = () => { node.classList.remove('nbc-sure'); showActions(); };
    if (action.confirm && !node.classList.contains('nbc-sure')) {
      node.classList.add('nbc-sure');
      node.textContent = action.confirm;
      node.setAttribute('aria-label', `${action.confirm} ${action.about}`);
      setTimeout(calm, 4000);
      return;
    }
    pressed = action.command;
    lately = id;
    calm();
    model.send({ action: id });
    node.setAttribute('aria-disabled', 'true');
    setTimeout(showActions, 1000);  // the kernel says before then what came of it; if not, nothing has changed
  };

  // Rows may have buttons of their own.
  body.addEventListener('click', (event) => {
    const node = event.target.closest('button[data-action]');
    if (node && node.getAttribute('aria-disabled') !== 'true') model.send({ action: node.dataset.action });
  });
  let held = '', inner = null;
  const putAway = () => { inner?.remove(); inner = null; };  // a widget's view has listeners of its own
  const showDrawer = async () => {
    const { title, html, model_id } = model.get('drawer') ?? {};
    const hadFocus = drawer.contains(document.activeElement);
    drawer.hidden = !title;
    if (!title) {
      putAway();
      drawer.replaceChildren();
      held = '';
      if (hadFocus) stay();
      return;
    }
    if (held === model_id + html) return;
    putAway();
    held = model_id + html;
    const opened = make('div', 'nbc-drawer-top'), inside = make('div', 'nbc-drawer-body'), name = make('strong', 'nbc-title');
    name.textContent = title;
    const close = button('Close', () => model.send({ close: true }));
    close.setAttribute('aria-label', `Close ${title}`);
    opened.append(name, close);
    drawer.setAttribute('aria-label', title);
    drawer.replaceChildren(opened, inside);
    spoken.textContent = `${title}: shown below`;
    if (html) fill(inside, html);
    if (model_id) {
      const child = await model.widget_manager.get_model(model_id);
      const view = await model.widget_manager.create_view(child);
      if (held !== model_id + html) { view.remove(); return; }
      inner = view;
      inside.append(view.el);
    }
  };

  const showGone = () => { gone.textContent = 'The kernel is gone: this is the last that was seen.'; clock.stop(); model.set('actions', []); showActions(); };
  const dropLog = logView(model, log, () => model.get('log_label').replace(/^.* /, '') || 'container');
  const wired = [['change:head', showHead], ['change:meters', showMeters], ['change:body', showBody], ['change:actions', showActions],
    ['change:label', showLabel], ['change:command', () => showCommand()], ['change:drawer', showDrawer], ['comm_live_update', showGone]];
  for (const [event, handler] of wired) model.on(event, handler);
  showLabel(); showHead(); showMeters(); showBody(); showActions(); showDrawer();
  // Lab would take letters and Enter as commands for the cell.
  card.addEventListener('keydown', (event) => event.stopPropagation());
  // What somebody opened, and what the card lay in: when the view is taken away, neither is there any more.
  const opened = new Set();
  let around = [];
  body.addEventListener('toggle', ({ target }) => {
    const summary = target.firstElementChild.textContent;
    if (target.open) opened.add(summary); else opened.delete(summary);
    around = ancestors(card);
  }, { capture: true });  // it does not bubble
  return () => { reopen(opened, card, around); putAway(); held = null; dropLog(); clock.stop(); for (const [event, handler] of wired) model.off(event, handler); };
}

export default { initialize, render };
