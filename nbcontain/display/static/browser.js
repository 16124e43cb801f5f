// A container's page in a frame that can reach nothing: neither the notebook nor any network. What it wants of its own
// server it asks for by messages, which the kernel answers from inside the container's network.
const SANDBOX = 'allow-scripts allow-forms';
const MOST = 300;  // so many things one page may ask for
const POLICY = "default-src 'none'; img-src data: blob:; media-src data: blob:; font-src data: blob:; style-src 'unsafe-inline' blob: data:; "
  + "script-src 'unsafe-inline' 'unsafe-eval' blob: data:; form-action 'none'; base-uri 'none'; frame-src 'none'";

// A frame may go elsewhere by itself, which only the policy of the document around it forbids: so there are two, and the
// page is in the inner one. The outer has no script, and the inner one has the policy from it too.
const escaped = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const HEAD = `<!doctype html><meta http-equiv="Content-Security-Policy" content="${escaped(POLICY)}">`;

// Runs inside of the inner frame. It is no guard, it only makes pages work: what guards is the sandbox and the policy.
function inside(start) {
  const waiting = new Map();
  let count = 0;
  const where = (text) => {
    try { const url = new URL(text, `http://localhost${start}`); return /^https?:$/.test(url.protocol) && /^(localhost|127\.0\.0\.1)$/.test(url.hostname) ? url.pathname + url.search : null; } catch { return null; }
  };
  const ask = (path, more = {}) => new Promise((resolve) => { waiting.set(++count, resolve); parent.parent.postMessage({ ask: count, path, ...more }, '*'); });
  addEventListener('message', (event) => {
    if (event.source !== parent.parent) return;
    waiting.get(event.data.answer)?.(event.data);
    waiting.delete(event.data.answer);
  });
  const go = (path, more = {}) => parent.parent.postMessage({ go: path, ...more }, '*');
  addEventListener('click', (event) => {
    const link = event.target.closest?.('a[href]');
    if (!link || link.getAttribute('href').startsWith('#')) return;
    event.preventDefault();
    const path = where(link.getAttribute('href'));
    if (path !== null) go(path); else parent.parent.postMessage({ outside: link.getAttribute('href') }, '*');
  });
  addEventListener('submit', (event) => {
    if (event.defaultPrevented) return;
    event.preventDefault();
    const form = event.target, data = new URLSearchParams(new FormData(form, event.submitter)).toString();
    const path = where(form.getAttribute('action') || start);
    if (path === null) return;
    if ((form.getAttribute('method') || 'get').toLowerCase() === 'post') go(path, { method: 'POST', body: data, kind: 'application/x-www-form-urlencoded' });
    else go(`${path.split('?')[0]}?${data}`);
  });
  window.fetch = async (what, options = {}) => {
    const path = where(typeof what === 'string' ? what : what.url ?? String(what));
    if (path === null) throw new TypeError('another server');
    const kind = new Headers(options.headers).get('content-type') ?? '';
    const answer = await ask(path, { method: options.method ?? 'GET', body: typeof options.body === 'string' ? options.body : '', kind });
    if (answer.error) throw new TypeError(answer.error);
    return new Response([204, 304].includes(answer.status) ? null : answer.data, { status: answer.status, headers: { 'content-type': answer.kind } });
  };
  const local = async (text) => {
    const path = where(text), answer = path === null ? {} : await ask(path);
    return answer.data && answer.status < 400 ? URL.createObjectURL(new Blob([answer.data], { type: answer.kind })) : null;
  };
  addEventListener('DOMContentLoaded', async () => {
    for (const node of document.querySelectorAll('img[src], source[src], audio[src], video[src]')) void local(node.getAttribute('src')).then((url) => { if (url) node.src = url; });
    for (const node of document.querySelectorAll('link[rel~=stylesheet][href]')) void local(node.getAttribute('href')).then((url) => { if (url) node.href = url; });
    for (const node of document.querySelectorAll('script[src]')) {  // in their order
      const url = await local(node.getAttribute('src'));
      if (!url) continue;
      const script = document.createElement('script');
      script.src = url;
      await new Promise((done) => { script.onload = script.onerror = done; node.replaceWith(script); });
    }
  });
}


let views = 0;
function render({ model, el }) {
  const id = `nbx${Date.now().toString(36)}${++views}`, waiting = new Map(), past = [];
  let counter = 0, asked = 0, going = 0, here = model.get('start');
  const button = (text, label, press) => {
    const node = make('button', '', { type: 'button', 'aria-label': label }, text);
    node.addEventListener('click', press);
    return node;
  };
  const said = make('span', 'nbc-about', { role: 'status' });
  const address = make('input', '', { type: 'text', 'aria-label': `path on ${model.get('name')}`, spellcheck: 'false' });
  const back = button('←', 'back', () => { if (past.length > 1) { past.pop(); go(past.pop()); } });
  const again = button('↻', 'load again', () => { const to = past.pop() ?? here; go(to); });
  const bar = make('form', 'nbx-tools', {}, make('span', 'nbc-actions', {}, back, again), make('b', '', {}, model.get('name')), address, said);
  const frame = make('iframe', 'nbx-page', { sandbox: SANDBOX, referrerpolicy: 'no-referrer', title: `page of ${model.get('name')}` });
  frame.style.height = `${model.get('height')}px`;
  const card = make('div', 'nbc nbx', { role: 'group', 'aria-label': `page of ${model.get('name')}` }, bar, frame);
  el.append(card);
  const ask = (order, then) => {
    const reference = `${id}.${++counter}`;
    waiting.set(reference, then);
    model.send({ path: order.path, method: order.method ?? 'GET', body: order.body ?? '', kind: order.kind ?? '', reference });
  };
  const take = (message, buffers) => {
    const then = waiting.get(message.reference);
    waiting.delete(message.reference);
    const view = buffers?.[0];
    then?.(message, view ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) : new ArrayBuffer(0));
  };
  const show = (html, path) => {
    const script = `(${inside})(${JSON.stringify(path).replace(/</g, '\\u003c')})`;
    const page = `${HEAD}<script>${script}<\/script>${html}`;
    frame.srcdoc = `${HEAD}<style>body { margin: 0 } iframe { display: block; width: 100%; height: 100vh; border: 0 }</style>`
      + `<iframe sandbox="${SANDBOX}" referrerpolicy="no-referrer" title="${escaped(model.get('name'))}" srcdoc="${escaped(page)}"></iframe>`;
  };
  const showBack = () => back.setAttribute('aria-disabled', String(past.length < 2));
  const go = (path, more = {}) => {
    said.textContent = 'loading…';
    asked = 0;
    const turn = ++going;
    ask({ path, ...more }, (answer, data) => {
      if (turn !== going) return;  // somebody went elsewhere before it came
      if (answer.error) { said.textContent = ''; show(`<p style="font: 14px sans-serif">${escaped(answer.error)}</p>`, path); address.value = path; return; }
      here = answer.path;
      address.value = here;
      past.push(here);
      showBack();
      said.textContent = `${answer.status}${answer.cut ? ', only the beginning' : ''}`;
      if (/^text\/html|^application\/xhtml/.test(answer.kind)) show(new TextDecoder().decode(data), here);
      else if (/^image\//.test(answer.kind)) show(`<img src="${escaped(here)}">`, here);
      else show(`<pre style="white-space: pre-wrap">${escaped(new TextDecoder().decode(data.slice(0, 200000)))}</pre>`, here);
    });
  };
  const inner = () => frame.contentWindow?.[0];
  const heard = (event) => {
    if (!event.source || event.source !== inner() || typeof event.data !== 'object' || event.data === null) return;
    const { ask: number, go: to, outside } = event.data;
    const order = { method: String(event.data.method ?? 'GET'), body: String(event.data.body ?? ''), kind: String(event.data.kind ?? '') };
    if (typeof to === 'string') go(to, order);
    else if (outside !== undefined) said.textContent = `${String(outside).slice(0, 100)} is another server`;
    else if (typeof number === 'number') {
      const target = inner();
      if (++asked > MOST) { target.postMessage({ answer: number, error: 'too much is asked for' }, '*'); return; }
      ask({ path: String(event.data.path), ...order }, (answer, data) => target?.postMessage({ answer: number, error: answer.error, status: answer.status, kind: answer.kind, data }, '*', [data]));
    }
  };
  // A frame that has the keyboard matches no :focus while something in it does.
  const ring = () => frame.classList.toggle('nbx-entered', document.activeElement === frame);
  for (const event of ['focus', 'blur']) addEventListener(event, ring);
  addEventListener('message', heard);
  model.on('msg:custom', take);
  bar.addEventListener('submit', (event) => { event.preventDefault(); go(address.value.startsWith('/') ? address.value : `/${address.value}`); });
  card.addEventListener('keydown', (event) => event.stopPropagation());
  showBack();
  go(here);
  return () => { removeEventListener('message', heard); for (const event of ['focus', 'blur']) removeEventListener(event, ring); model.off('msg:custom', take); };
}

export default { render };
