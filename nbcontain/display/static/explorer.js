// The layers of an image or a container: a stack, the files that a layer leaves, one file looked into. Directories come
// when they are opened. All that the kernel sends is text and becomes text nodes; nothing of it is parsed as HTML.
const LETTERS = { A: ['+', 'added', 'nbc-added'], C: ['~', 'changed', 'nbc-changed'], D: ['−', 'removed', 'nbc-removed'] };
let views = 0;

function mark(letter) {
  if (!LETTERS[letter]) return make('b', 'nbx-mark');
  const [sign, word, name] = LETTERS[letter];
  return make('b', `nbx-mark ${name}`, {}, make('span', '', { 'aria-hidden': 'true' }, sign), make('span', 'nbc-hidden', {}, `${word} `));
}

// One stop for the Tab key; arrows move inside.
function focusOn(items, item) {
  for (const each of items) each.tabIndex = each === item ? 0 : -1;
}

function render({ model, el }) {
  const begun = model.get('begun'), id = `nbx${Date.now().toString(36)}${++views}`;
  let number = begun.layers.length, counter = 0, chosen = null, searching = 0;
  const waiting = new Map();
  const ask = (asked, then) => {
    const reference = `${id}.${++counter}`;
    waiting.set(reference, then);
    model.send({ ...asked, number, changed: changed.checked, sort: largest.checked ? 'size' : 'name', reference });
  };
  const take = (message) => {
    const then = waiting.get(message.reference);
    waiting.delete(message.reference);
    then?.(message);
  };
  const said = (text) => { spoken.textContent = text; };

  // --- what stands there ---
  const card = make('div', 'nbc nbx', { role: 'group', 'aria-label': `layers of ${begun.name}` });
  const about = make('span', 'nbc-about', {}, begun.about), actions = make('div', 'nbc-actions');
  const top = make('div', 'nbc-top', {}, make('div', 'nbc-head', {}, make('strong', 'nbc-title', {}, begun.name), ' ', about), actions);
  const spoken = make('span', 'nbc-hidden', { role: 'status' });
  const stack = make('div', 'nbx-layers', { role: 'listbox', 'aria-label': 'layers, the uppermost first' });
  const made = make('div', 'nbx-made-by');
  const filter = make('input', '', { type: 'search', placeholder: 'Filter: path or *.py', 'aria-label': 'filter files' });
  const changed = make('input', '', { type: 'checkbox' }), largest = make('input', '', { type: 'checkbox' });
  const bar = make('div', 'nbx-tools', {}, filter, make('label', '', {}, changed, ' only what it changes'), make('label', '', {}, largest, ' largest first'));
  const tree = make('div', 'nbx-tree', { role: 'tree', 'aria-label': 'files' });
  const file = make('div', 'nbx-file', { role: 'region', 'aria-label': 'the file that is looked into', hidden: '' });
  const gone = make('div', 'nbc-gone', { role: 'status' });
  card.append(top, spoken, make('div', 'nbx-over', {}, stack, made), bar, make('div', 'nbx-split', {}, tree, file), gone);
  el.append(card);

  const button = (text, label, press, pressed) => {
    const node = make('button', '', { type: 'button', 'aria-label': label }, text);
    if (pressed !== undefined) node.setAttribute('aria-pressed', String(pressed));
    node.addEventListener('click', () => press(node));
    return node;
  };

  // --- layers ---
  const most = Math.max(1, ...begun.layers.map((each) => each.bytes));
  const layers = [...begun.layers].reverse().map((each) => {
    const [a, c, d] = each.counts;
    const counts = [a && `+${a}`, c && `~${c}`, d && `−${d}`].filter(Boolean).join(' ');
    const fill = make('span');
    fill.style.width = `${Math.max(each.bytes ? 1 : 0, Math.round(100 * each.bytes / most))}%`;
    const row = make('div', 'nbx-layer', { role: 'option', 'aria-label':
      `layer ${each.number}, ${each.size}, ${each.made}, ${a} added, ${c} changed, ${d} removed${each.wasted && `, ${each.wasted} wasted`}` },
      make('span', 'nbx-number', {}, String(each.number)), make('span', 'nbx-bar', {}, fill), make('span', 'nbx-size', {}, each.size),
      make('span', 'nbx-made', {}, each.made || '(nothing says what made it)'),
      make('span', 'nbx-counts', {}, counts, ...(each.wasted ? [make('span', 'nbx-waste', {}, `${counts && ' · '}${each.wasted} wasted`)] : [])));
    row.number = each.number;
    row.addEventListener('click', () => choose(row));
    return row;
  });
  stack.append(...layers);
  const choose = (row) => {
    number = row.number;
    layers.forEach((each) => each.setAttribute('aria-selected', String(each === row)));
    focusOn(layers, row);
    const layer = begun.layers[number - 1];
    made.replaceChildren(make('b', '', {}, `layer ${number}`), ` ${layer.stored && `${layer.stored} · `}${layer.made}`);
    show();
  };
  stack.addEventListener('keydown', (event) => {
    const at = layers.findIndex((each) => each.tabIndex === 0);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: layers.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const row = layers[Math.max(0, Math.min(layers.length - 1, to))];
    choose(row);
    row.focus();
  });

  // --- the tree ---
  const items = () => [...tree.querySelectorAll('[role=treeitem]')];
  const opened = new Set();  // keys, so that another layer shows the same directories open
  const item = ([key, name, opens, letter, size, entries, touched, mode, wrote], level, at, of) => {
    const row = make('div', 'nbx-row', { role: 'treeitem', 'aria-level': level, 'aria-posinset': at, 'aria-setsize': of, tabindex: '-1', 'aria-selected': 'false' },
      mark(letter), make('span', 'nbx-name', {}, name),
      make('span', 'nbx-inside', {}, touched ? `${touched} changed inside` : ''),
      make('span', 'nbx-mode', {}, mode), make('span', 'nbx-from', {}, wrote ? `layer ${wrote}` : ''), make('span', 'nbx-size', {}, size));
    row.style.setProperty('--level', level);
    if (opens) row.setAttribute('aria-expanded', 'false');
    if (letter) row.classList.add(`nbx-${LETTERS[letter][1]}`);
    Object.assign(row, { key, opens, level });
    row.addEventListener('click', () => { focusOn(items(), row); row.focus({ preventScroll: true }); act(row); });
    return row;
  };
  const more = (count, level, press) => {
    const row = make('div', 'nbx-row nbc-more', { role: 'treeitem', 'aria-level': level, tabindex: '-1' }, press ? `… ${count} more: show` : `… ${count} more: a longer filter finds them`);
    row.style.setProperty('--level', level);
    row.level = level;
    row.addEventListener('click', () => press?.(row));
    return row;
  };
  const fill = (answer, level, after, key) => {
    const of = (answer.start ?? 0) + answer.rows.length + answer.more;
    const rows = answer.rows.map((each, i) => item(each, level, (answer.start ?? 0) + i + 1, of));
    if (answer.more) rows.push(more(answer.more, level, key === undefined ? null : (row) =>
      ask({ ask: 'rows', key, start: (answer.start ?? 0) + answer.rows.length }, (next) => {
        if (next.error) return fail(next.error);
        const previous = row.previousElementSibling;
        row.remove();
        fill(next, level, previous, key);
        previous?.nextElementSibling?.focus();
      })));
    if (after) after.after(...rows); else tree.replaceChildren(...rows);
    if (!tree.querySelector('[tabindex="0"]')) focusOn(items(), items()[0]);
    for (const row of rows) if (opened.has(row.key) && row.opens) open(row);
    return rows;
  };
  const fail = (text) => { said(text); gone.textContent = text; };
  const open = (row) => {
    if (row.getAttribute('aria-expanded') !== 'false') return;
    row.setAttribute('aria-expanded', 'true');
    opened.add(row.key);
    ask({ ask: 'rows', key: row.key, start: 0 }, (answer) => {
      if (answer.error) return fail(answer.error);
      if (row.isConnected && row.getAttribute('aria-expanded') === 'true') fill(answer, row.level + 1, row, row.key);
    });
  };
  const close = (row) => {
    row.setAttribute('aria-expanded', 'false');
    opened.delete(row.key);
    while (row.nextElementSibling?.level > row.level) row.nextElementSibling.remove();
    if (!tree.querySelector('[tabindex="0"]')) focusOn(items(), row);
  };
  const act = (row) => {
    if (row.getAttribute('aria-expanded') === 'false') open(row);
    else if (row.getAttribute('aria-expanded') === 'true') close(row);
    else if (row.key !== undefined) look(row.key, row);
    else row.click();
  };
  const show = () => {
    const asked = ++searching, text = filter.value.trim();
    const then = (answer) => {
      if (asked !== searching) return;
      if (answer.error) return fail(answer.error);
      tree.replaceChildren();
      fill(answer, 1, null, text ? undefined : 0);
      if (!answer.rows.length) tree.append(make('div', 'nbx-none', {}, text ? 'nothing is called that' : 'nothing'));
      said(`${answer.rows.length + answer.more} ${text ? 'found' : 'at the top'}`);
    };
    if (text) ask({ ask: 'find', text }, then); else ask({ ask: 'rows', key: 0, start: 0 }, then);
    if (chosen !== null) look(chosen);
  };
  let typed = '', typedAt = 0;
  tree.addEventListener('keydown', (event) => {
    const rows = items(), row = rows.find((each) => each.tabIndex === 0), at = rows.indexOf(row);
    if (!row || event.ctrlKey || event.altKey || event.metaKey) return;
    const expanded = row.getAttribute('aria-expanded');
    const goto = (to) => { if (to) { focusOn(rows, to); to.focus(); } };
    const above = () => { for (let i = at - 1; i >= 0; i--) if (rows[i].level < row.level) return rows[i]; };
    switch (event.key) {
      case 'ArrowDown': goto(rows[at + 1]); break;
      case 'ArrowUp': goto(rows[at - 1]); break;
      case 'Home': goto(rows[0]); break;
      case 'End': goto(rows[rows.length - 1]); break;
      case 'ArrowRight': if (expanded === 'false') open(row); else if (rows[at + 1]?.level > row.level) goto(rows[at + 1]); break;
      case 'ArrowLeft': if (expanded === 'true') close(row); else goto(above()); break;
      case 'Enter': case ' ': act(row); break;
      default: {
        if (event.key.length !== 1) return;
        typed = event.timeStamp - typedAt < 700 ? typed + event.key.toLowerCase() : event.key.toLowerCase();
        typedAt = event.timeStamp;
        const start = typed.length > 1 ? at : at + 1;
        goto([...rows.slice(start), ...rows.slice(0, start)].find((each) => each.querySelector('.nbx-name')?.textContent.toLowerCase().startsWith(typed)));
      }
    }
    event.preventDefault();
  });
  let timer = 0;
  filter.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(show, 150); });
  changed.addEventListener('change', show);
  largest.addEventListener('change', show);

  // --- one file ---
  const look = (key, row) => {
    chosen = key;
    for (const each of items()) each.setAttribute('aria-selected', String(each.key === key));
    ask({ ask: 'look', key }, (answer) => {
      if (chosen !== key) return;
      file.hidden = false;
      card.classList.add('nbx-looks');
      if (answer.error) { file.replaceChildren(make('div', 'nbx-note', {}, answer.error)); return; }
      draw(answer.look);
      if (row) said(`${answer.look.path}: ${answer.look.told.at(-1)?.[2] ?? ''}`);
    });
  };
  const draw = (look) => {
    const close = button('✕', 'close the file', () => {
      chosen = null;
      file.hidden = true;
      card.classList.remove('nbx-looks');
      tree.querySelector('[tabindex="0"]')?.focus();
    });
    const head = make('div', 'nbx-head', {}, make('b', 'nbx-path', {}, look.path), make('span', 'nbc-about', {}, `${look.mode}  ${look.size}`), make('div', 'nbc-actions', {}, close));
    const told = make('ol', 'nbx-told', { 'aria-label': 'which layers wrote it' });
    for (const [at, letter, what, by] of [...look.told].reverse()) {
      const here = make('li', at === number ? 'nbx-here' : '', {}, mark(letter), make('button', '', { type: 'button', 'aria-label': `go to layer ${at}` }, `layer ${at}`), ` ${what} `, make('code', '', {}, by));
      here.querySelector('button').addEventListener('click', () => choose(layers.find((each) => each.number === at)));
      told.append(here);
    }
    const body = make('div', 'nbx-body');
    const pre = (lines, name = '') => make('pre', `nbx-text ${name}`, { tabindex: '0' }, lines);
    const content = () => body.replaceChildren(look.note ? make('div', 'nbx-note', {}, look.note)
      : look.empty ? make('div', 'nbx-note', {}, 'it is empty')
      : pre(look.text ?? look.hex), ...(look.cut ? [make('div', 'nbx-note', {}, 'only the beginning is shown')] : []));
    const difference = () => {
      const lines = pre('', 'nbx-diff');
      for (const line of look.difference) {
        const name = /^(\+\+\+|---)/.test(line) ? 'nbc-about' : { '+': 'nbc-added', '-': 'nbc-removed', '@': 'nbc-about' }[line[0]];
        lines.append(make('span', name ?? '', {}, line), '\n');
      }
      body.replaceChildren(lines);
    };
    file.replaceChildren(head, told);
    if (look.difference.length) {
      const tabs = make('div', 'nbc-actions nbx-tabs');
      const press = (first) => { tabs.children[0].setAttribute('aria-pressed', String(first)); tabs.children[1].setAttribute('aria-pressed', String(!first)); (first ? difference : content)(); };
      tabs.append(button('what changed', 'what changed', () => press(true), true), button('content', 'content', () => press(false), false));
      file.append(tabs, body);
      press(true);
    } else { file.append(body); content(); }
  };

  // --- what is wasted, and a container once more ---
  if (begun.wasted.length) {
    actions.append(button('Wasted', 'show the files on which bytes are wasted', (node) => {
      const on = node.getAttribute('aria-pressed') !== 'true';
      node.setAttribute('aria-pressed', String(on));
      bar.hidden = on;
      if (!on) return show();
      ++searching;
      const rows = begun.wasted.map(([key, path, size, times], i) =>
        item([key, path, 0, '', size, 0, 0, times > 1 ? `in ${times} layers` : '', 0], 1, i + 1, begun.wasted.length));
      tree.replaceChildren(...rows);
      focusOn(rows, rows[0]);
      said(`${rows.length} files are overwritten or removed by a later layer`);
    }, false));
  }
  if (begun.live) actions.append(button('Look again', 'see what the container has written by now', () => ask({ ask: 'again' }, (answer) => { if (answer.error) fail(answer.error); })));
  const anew = () => {  // the kernel sent other layers: all is drawn again
    model.off('msg:custom', take);
    el.replaceChildren();
    stop();
    stop = render({ model, el });
  };
  const dead = () => { gone.textContent = 'The kernel is gone: nothing more can be opened.'; };
  model.on('msg:custom', take);
  model.on('change:begun', anew);
  model.on('comm_live_update', dead);
  let stop = () => { model.off('msg:custom', take); model.off('change:begun', anew); model.off('comm_live_update', dead); };
  card.addEventListener('keydown', (event) => event.stopPropagation());  // Lab would take letters and Enter as commands

  if (layers.length) {
    layers[0].setAttribute('aria-selected', 'true');
    focusOn(layers, layers[0]);
    const layer = begun.layers[number - 1];
    made.replaceChildren(make('b', '', {}, `layer ${number}`), ` ${layer.stored && `${layer.stored} · `}${layer.made}`);
    fill(begun.first, 1, null, 0);
  }
  return () => stop();
}

export default { render };
