// A terminal in a cell: xterm.js on a program that has a terminal of its own. xterm.js itself comes once per page over the
// widget's channel, since in the widget's state it would be saved with each of them.
const HEARD_BYTES = 16384;
const ROWS = 18;
const BUNDLE = (globalThis.nbcontainXterm ??= {});

function initialize({ model }) { model.set('skew', Date.now() / 1000 - model.get('now')); }

function loaded(model) {
  if (BUNDLE.modules) return BUNDLE.modules;
  const asked = new Promise((resolve, reject) => {
    // A kernel that went away meanwhile never answers.
    const patience = setTimeout(() => { model.off('msg:custom', take); reject(new Error('the kernel does not answer')); }, 20000);
    const take = async (message, buffers) => {
      if (message?.kind !== 'asset') return;
      model.off('msg:custom', take);
      clearTimeout(patience);
      const [xterm, fit, css] = buffers;
      const sheet = document.createElement('style');
      sheet.textContent = new TextDecoder().decode(css);
      document.head.append(sheet);
      const fetched = (code) => import(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })));
      try { resolve({ ...await fetched(xterm), ...await fetched(fit) }); } catch (error) { reject(error); }
    };
    model.on('msg:custom', take);
    model.send({ kind: 'asset' });
  });
  BUNDLE.modules = asked;
  asked.catch(() => { delete BUNDLE.modules; });  // the next terminal asks again
  return asked;
}

// The page's own colours, and the sixteen of the cards.
function theme(el) {
  const style = getComputedStyle(el);
  const colour = (name) => style.getPropertyValue(name).trim();
  const eight = Array.from({ length: 8 }, (_, i) => colour(`--c${i}`));
  const names = ['black', 'red', 'green', 'yellow', 'blue', 'magenta', 'cyan', 'white'];
  const sixteen = Object.fromEntries(names.flatMap((name, i) => [[name, eight[i]], [`bright${name[0].toUpperCase()}${name.slice(1)}`, eight[i]]]));
  return { background: style.backgroundColor, foreground: style.color, cursor: style.color, cursorAccent: style.backgroundColor,
    selectionBackground: 'rgb(128 128 128 / .4)', ...sixteen };
}

// What a terminal says by itself because a program asked: what it is, where its cursor stands, its colours.
const ANSWER = /^\x1b(\[[?>=]?[\d;]*(c|n|R|t|\$y)|[\]P][^]*)$/;

// A websocket to the kernel's end of the terminal, past kernel messages, if Jupyter's server leads to one (relay.py).
async function lineOf(model, id) {
  // A script, which no output that a page has cleaned can hold: what says where keys go comes with the page.
  const config = JSON.parse(document.querySelector('script#jupyter-config-data')?.textContent || '{}');
  if (!config.nbcontainLines) return null;
  const name = await new Promise((resolve) => {
    const patience = setTimeout(() => { model.off('msg:custom', take); resolve(''); }, 5000);
    const take = (message) => {
      if (message?.kind !== 'line' || message.to !== id) return;
      model.off('msg:custom', take);
      clearTimeout(patience);
      resolve(message.name);
    };
    model.on('msg:custom', take);
    model.send({ kind: 'line', id });
  });
  if (!name) return null;
  const url = new URL(`${config.wsUrl || config.baseUrl || '/'}nbcontain/lines/${name}`, location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  // As Jupyter's own websockets do: at home the cookie says who we are, and proxies write URLs down.
  if (config.token && url.host !== location.host) url.searchParams.set('token', config.token);
  const line = new WebSocket(url);
  line.binaryType = 'arraybuffer';
  // What stands between may leave it open whether there is a way.
  const patience = setTimeout(() => line.close(), 5000);
  return new Promise((resolve) => { line.onopen = () => resolve(line); line.onclose = () => resolve(null); }).finally(() => clearTimeout(patience));
}

function render({ model, el }) {
  const card = make('div', 'nbc', { role: 'group' });
  const top = make('div', 'nbc-top'), head = make('div', 'nbc-head'), actions = make('div', 'nbc-actions');
  const box = make('div', 'nbc-terminal'), foot = make('div', 'nbc-command nbc-keys');
  const said = make('span', 'nbc-hidden', { role: 'status' });
  top.append(head, actions);
  card.append(top, said, box, foot);
  el.append(card);
  const clock = count(card, model.get('skew') ?? 0);
  const id = Math.random().toString(36).slice(2);
  let term = null, line = null, isShown = false, replayed = 0, drawn = 0, lastEscape = 0, toldAt = 0, isOver = false, rows = ROWS;
  const tell = (message) => {
    if (line?.readyState !== 1) return model.send(message);
    line.send(JSON.stringify(message));
    // Who ends kernels that nobody uses counts their messages.
    if (Date.now() - toldAt < 60000) return;
    toldAt = Date.now();
    model.send({ kind: 'drawn', bytes: 0 });
  };

  const end = button('End', () => model.send({ kind: 'end' })), detach = button('Detach', () => model.send({ kind: 'detach' }));
  const reader = make('label', 'nbc-check'), readerBox = make('input', '', { type: 'checkbox' });
  reader.append(readerBox, 'screen reader');
  readerBox.addEventListener('change', () => { if (term) term.options.screenReaderMode = readerBox.checked; });
  const show = () => {
    fill(head, model.get('head'));
    clock.now();
    card.setAttribute('aria-label', model.get('label'));
    if (said.textContent !== model.get('label')) said.textContent = model.get('label');
    const isAlive = model.get('alive');
    actions.replaceChildren(...(isAlive ? [reader, ...(model.get('detaches') ? [detach] : []), end] : []));
    for (const node of [end, detach]) node.setAttribute('aria-label', `${node.textContent} ${model.get('name')}`);
    foot.textContent = isAlive ? 'Esc Esc leaves the terminal' : model.get('farewell');
    if (term) { term.options.disableStdin = !isAlive; term.options.cursorBlink = false; term.write('', settle); }
  };

  // Once it is over, it is as high as what is written in it; something may still be on its way by then.
  const settle = () => {
    if (isOver || model.get('alive') || term.buffer.active.type !== 'normal') return;
    const { active } = term.buffer;
    const cursor = active.baseY + active.cursorY;  // what is above it would leave the screen before it does
    let last = active.length - 1;
    while (last > cursor && !active.getLine(last)?.translateToString(true)) last--;
    rows = Math.min(last + 1, ROWS);
    box.style.minHeight = '0';
    if (term.rows !== rows) term.resize(term.cols, rows);
  };

  const write = (bytes, isReplay) => {
    replayed += isReplay;
    // The kernel goes on reading once what it sent was drawn.
    term.write(bytes, () => {
      if (isReplay) { replayed--; return; }
      // Of what is little the kernel hears later: each key's echo would cost a message more.
      drawn += bytes.length;
      if (drawn < HEARD_BYTES) return;
      tell({ kind: 'drawn', bytes: drawn });
      drawn = 0;
    });
    if (!model.get('alive')) term.write('', settle);
  };
  const take = (message, buffers) => {
    // What comes by messages while there is a line is for other views.
    if (message?.kind !== 'out' || !term || line) return;
    if (message.to !== undefined ? message.to !== id : !isShown) return;
    if (message.to === id) { term.reset(); isShown = true; }
    write(new Uint8Array(buffers[0].buffer, buffers[0].byteOffset, buffers[0].byteLength), message.to === id);
  };
  const follow = () => {
    line.onmessage = ({ data }) => {
      const packet = new Uint8Array(data);
      write(packet.subarray(1), packet[0] === 1);
    };
    line.onclose = () => {
      line = null;
      // The server went, or its way here: messages go on, with all that was said.
      if (!isOver && model.get('alive')) model.send({ kind: 'ready', id });
    };
  };

  const observers = [];
  const begin = async () => {
    const [{ Terminal, FitAddon }, opened] = await Promise.all([loaded(model), lineOf(model, id)]);
    if (isOver) { opened?.close(); return; }
    // It may have been cut already, while xterm.js came.
    line = opened?.readyState === 1 ? opened : null;
    if (!card.isConnected && !el.isConnected) await new Promise((resolve) => setTimeout(resolve, 50));
    term = new Terminal({
      rows, cols: 80, scrollback: 5000, fontSize: 12, fontFamily: getComputedStyle(box).fontFamily, theme: theme(box), minimumContrastRatio: 4.5,
      // A link that a program made up leads nowhere.
      linkHandler: { activate: () => {}, allowNonHttpProtocols: false }, allowProposedApi: false,
    });
    const fit = new FitAddon();
    term.loadAddon(fit);
    term.open(box);
    const input = box.querySelector('textarea');
    if (input) input.setAttribute('aria-label', `terminal of ${model.get('name')}`);
    term.attachCustomKeyEventHandler((event) => {
      if (event.type !== 'keydown') return true;
      const isPlain = event.ctrlKey && !event.altKey && !event.metaKey;
      // What is selected is copied, and what was copied is pasted, by the browser itself.
      if (isPlain && event.key.toLowerCase() === 'c' && (event.shiftKey || term.hasSelection())) return false;
      if (isPlain && event.key.toLowerCase() === 'v') return false;
      if (event.key === 'Escape') {
        if (event.timeStamp - lastEscape < 500) { (actions.querySelector('button') ?? card).focus(); lastEscape = 0; return false; }
        lastEscape = event.timeStamp;
      }
      return true;
    });
    term.onData((data) => {
      const answers = ANSWER.test(data);
      // What was asked long ago was answered then.
      if (answers && replayed) return;
      for (const part of data.match(/[^]{1,8000}/gu) ?? []) tell({ kind: 'in', data: part, view: id, answers });
    });
    term.onBinary((data) => tell({ kind: 'in', data }));
    term.onResize(({ rows, cols }) => tell({ kind: 'size', rows, cols }));
    const resize = () => {
      const size = box.clientWidth > 0 ? fit.proposeDimensions() : null;
      if (size?.cols > 1) term.resize(size.cols, rows);
    };
    const sizes = new ResizeObserver(resize);
    sizes.observe(box);
    const themes = new MutationObserver(() => setTimeout(() => { term.options.theme = theme(box); }, 50));
    themes.observe(document.body, { attributes: true, attributeFilter: ['data-jp-theme-light', 'data-jp-theme-name', 'class'] });
    observers.push(sizes, themes);
    resize();
    show();
    if (line) follow();
    tell({ kind: 'size', rows: term.rows, cols: term.cols });
    tell({ kind: 'ready', id });
    if (model.get('alive')) term.focus();
  };

  const gone = () => { model.set('farewell', 'The kernel is gone: this is the last that was seen.'); model.set('alive', false); };
  const wired = [['msg:custom', take], ['change:head', show], ['change:alive', show], ['change:farewell', show], ['comm_live_update', gone]];
  for (const [event, handler] of wired) model.on(event, handler);
  // Lab would take Enter, Esc and letters as commands for the cell, and its menu for ours.
  for (const event of ['keydown', 'keypress', 'keyup', 'contextmenu']) card.addEventListener(event, (e) => e.stopPropagation());
  show();
  begin().catch((error) => { foot.textContent = `The terminal cannot be shown here: ${error.message}`; });
  return () => {
    isOver = true;
    line?.close();
    for (const [event, handler] of wired) model.off(event, handler);
    for (const observer of observers) observer.disconnect();
    clock.stop();
    term?.dispose();
  };
}

export default { initialize, render };
