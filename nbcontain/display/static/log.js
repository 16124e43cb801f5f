// A log: the last lines as data, of which those that match are drawn, the newest at the end. Drawing more than a part
// of them would make each new line wait for the layout of all.
const CLASSES = /^(nbc-(bold|dim|italic|underline|strike|inverse|(fg|bg)\d\d?)( |$))*$/;
const SOURCES = { stderr: 'nbc-err', note: 'nbc-note' };
const DRAWN = 400, ALL = 2000;
const grouped = (number) => number.toLocaleString('en').replace(/,/g, '\u202f');

// The model keeps the tail, so that a second view of it starts where the first one is.
function keepTail(model) {
  const take = () => {
    const { from, lines, begun } = model.get('delta');
    const tail = model.get('tail');
    const known = tail.lines ?? [];
    const joined = (from === tail.end ? known.concat(lines) : lines).slice(-ALL);
    model.set('tail', { end: from + lines.length, lines: joined, begun });
  };
  model.on('change:delta', take);
  return () => model.off('change:delta', take);
}

// Where a search hits in a text: pairs of begin and end.
function hits(text, find) {
  const found = [];
  if (!find) return found;
  find.lastIndex = 0;
  for (let hit; found.length < 100 && (hit = find.exec(text));) {
    if (hit[0]) found.push([hit.index, hit.index + hit[0].length]);
    else find.lastIndex++;
  }
  return found;
}

function drawLine(line, find) {  // [source, [text, classes]...]
  const node = make('div', SOURCES[line[0]] ?? '');
  const marked = hits(line.slice(1).map(([text]) => text).join(''), find);
  let at = 0;
  for (const [text, classes] of line.slice(1)) {
    const cuts = [0, text.length, ...marked.flat().map((place) => place - at)].filter((place) => place >= 0 && place <= text.length);
    const places = [...new Set(cuts)].sort((a, b) => a - b);
    for (let i = 1; i < places.length; i++) {
      const [begin, end] = [places[i - 1], places[i]];
      const isHit = marked.some(([from, to]) => at + begin >= from && at + end <= to);
      const looks = classes && CLASSES.test(classes) ? classes : '';
      const part = document.createTextNode(text.slice(begin, end));
      if (!isHit && !looks) { node.append(part); continue; }
      const span = make(isHit ? 'mark' : 'span', looks);
      span.append(part);
      node.append(span);
    }
    at += text.length;
  }
  if (!node.firstChild) node.append(document.createTextNode('\u200b'));
  return node;
}

function logView(model, el, about) {
  const bar = make('div', 'nbc-bar-tools', { role: 'search' });
  const box = make('div', 'nbc-log', { role: 'log', 'aria-live': 'off', tabindex: '0' });
  const query = make('input', 'nbc-filter', { type: 'search', placeholder: 'Filter', spellcheck: 'false', autocomplete: 'off' });
  const check = (label) => {
    const node = make('label', 'nbc-check'), input = make('input', '', { type: 'checkbox' });
    node.append(input, label);
    return [node, input];
  };
  const [regexLabel, regex] = check('regex');
  const [stderrLabel, onlyErrors] = check('stderr only');
  const said = make('span', 'nbc-found', { role: 'status' });
  const follow = button('', () => { stick = true; draw(); box.focus({ preventScroll: true }); });
  follow.className = 'nbc-follow';
  const download = button('Download', () => take());
  bar.append(query, regexLabel, stderrLabel, said, download);
  const frame = make('div', 'nbc-log-frame');
  frame.append(box, follow);
  el.append(bar, frame);

  let end = -1, stick = true, window_ = DRAWN, find = null, unseen = 0, begun = [], drawnFor = '';
  const more = button('', () => { window_ += 4 * DRAWN; const from = box.scrollHeight - box.scrollTop; drawnFor = ''; draw(true); box.scrollTop = box.scrollHeight - from; });
  more.className = 'nbc-more';

  const matches = (line) => (!onlyErrors.checked || line[0] === 'stderr')
    && (!find || hits(line.slice(1).map(([text]) => text).join(''), find).length > 0);

  function read() {
    find = null;
    query.removeAttribute('aria-invalid');
    query.title = '';
    if (query.value) try {
      find = new RegExp(regex.checked ? query.value : query.value.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), 'gi');
    } catch (error) {
      query.setAttribute('aria-invalid', 'true');
      query.title = error.message;
    }
    stick = true;
    window_ = DRAWN;
    draw();
  }

  // Scrolled up, the log stands still: nobody wants to read what moves.
  function draw(anyway = false) {
    const tail = model.get('tail'), lines = tail.lines ?? [];
    bar.hidden = !lines.length;  // nothing was said: there is nothing to look for
    const key = `${query.value}\0${regex.checked}\0${onlyErrors.checked}`;
    const fresh = end < 0 ? lines.length : Math.min(lines.length, Math.max(0, tail.end - end));
    if (!stick && !anyway && key === drawnFor) {
      unseen += lines.slice(lines.length - fresh).filter(matches).length;
      end = tail.end;
      showFollow();
      return;
    }
    for (const node of begun) node.remove();
    const isFiltered = !!find || onlyErrors.checked;
    const isWhole = key !== drawnFor || unseen > 0 || fresh >= lines.length;
    const wanted = (isWhole ? lines : lines.slice(lines.length - fresh)).filter((line) => !isFiltered || matches(line));
    const part = document.createDocumentFragment();
    const left = isWhole ? Math.max(0, wanted.length - window_) : 0;
    for (const line of wanted.slice(left)) part.append(drawLine(line, find));
    more.remove();
    if (isWhole) box.replaceChildren(part); else box.append(part);
    while (box.childElementCount > window_) box.firstChild.remove();
    begun = isFiltered ? [] : (tail.begun ?? []).map((line) => drawLine(line, null));
    const shown = box.childElementCount;
    box.append(...begun);
    end = tail.end;
    drawnFor = key;
    unseen = 0;
    showMore(tail, lines, shown, isFiltered);
    if (stick) box.scrollTop = box.scrollHeight;
    showFollow();
  }

  function showMore(tail, lines, shown, isFiltered) {
    const held = isFiltered ? lines.filter(matches).length : lines.length;
    const gone = tail.end - lines.length;
    const whole = model.get('whole_log');
    const texts = [];
    if (held > shown) texts.push(`show ${grouped(held - shown)} earlier ${isFiltered ? 'ones' : held - shown > 1 ? 'lines' : 'line'}`);
    if (gone > 0) texts.push(`… ${grouped(gone)} earlier line${gone > 1 ? 's' : ''}${held > shown ? ' before' : ''}${whole ? ` · ${whole}` : ''}`);
    if (texts.length) { more.textContent = texts.join(' · '); more.toggleAttribute('disabled', held <= shown); box.prepend(more); }
    const text = isFiltered ? `${grouped(held)} of the last ${grouped(lines.length)} lines` : '';
    if (said.textContent !== text) said.textContent = text;
  }

  function showFollow() {
    follow.hidden = stick;
    follow.textContent = unseen ? `▼ ${grouped(unseen)} new line${unseen > 1 ? 's' : ''}` : '▼ Follow';
  }

  // Asked when the user scrolls and not when lines come: a window that gets narrower moves the end away, too.
  box.addEventListener('scroll', () => {
    const isAtEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 12;
    if (isAtEnd === stick) return;
    stick = isAtEnd;
    if (stick && unseen) draw(); else showFollow();
  }, { passive: true });
  query.addEventListener('input', read);
  query.addEventListener('keydown', (event) => { if (event.key === 'Escape' && query.value) { query.value = ''; read(); } });
  regex.addEventListener('change', read);
  onlyErrors.addEventListener('change', read);

  // The whole log comes over the widget's channel, in pieces.
  let pieces = null;
  const id = Math.random().toString(36).slice(2);
  function take() {
    if (pieces) return;
    pieces = [];
    download.setAttribute('aria-disabled', 'true');
    download.textContent = 'Downloading…';
    model.send({ download: id });
  }
  function receive(message, buffers) {
    if (message?.download !== id || !pieces) return;
    if (!message.over) { pieces.push(buffers[0]); return; }
    if (message.error) said.textContent = message.error;
    else {
      const link = make('a', '', { download: `${about()}.log`, href: URL.createObjectURL(new Blob(pieces, { type: 'text/plain' })) });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    }
    pieces = null;
    download.removeAttribute('aria-disabled');
    download.textContent = 'Download';
  }

  const label = () => {
    const text = model.get('log_label') || 'output';
    box.setAttribute('aria-label', text);
    query.setAttribute('aria-label', `filter ${text}`);
    download.setAttribute('aria-label', `Download the whole log of ${about()}`);
  };
  const update = () => {
    const isSilent = !(model.get('tail').end || model.get('tail').begun?.length);
    bar.hidden = frame.hidden = isSilent;
    if (!isSilent) draw();
  };
  const wired = [['change:tail', update], ['change:log_label', label], ['msg:custom', receive]];
  for (const [event, handler] of wired) model.on(event, handler);
  label();
  update();
  box.scrollTop = box.scrollHeight;
  return () => { for (const [event, handler] of wired) model.off(event, handler); };
}
