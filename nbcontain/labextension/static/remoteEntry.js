// Colours cells of ours as what they hold: %%dockerfile, %%contextfile NAME, %%container run|exec, %%compose.
//
// JupyterLab and Notebook 7 load this file as it stands (a module federation container: `init` is handed the modules
// that the page shares, `get` gives ours), so there is nothing to build and no node is needed.
// Nothing is written into notebooks: a cell's mime type is not saved.
//
// And where a notebook is opened again whose kernel is gone, outputs of ours show the picture that was saved with them.
(() => {
  'use strict';

  let shared = {};

  /** A module of the page, in its newest version. */
  const page = async name => {
    const versions = shared[name];
    if (!versions) throw new Error(`nbcontain: this page does not share ${name}`);
    const newest = Object.keys(versions).sort((a, b) => a.localeCompare(b, undefined, { numeric: true })).pop();
    return (await versions[newest].get())();
  };

  // --- the Dockerfile language, a line at a time ---

  const INSTRUCTIONS = new Set(('ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN ' +
    'SHELL STOPSIGNAL USER VOLUME WORKDIR').split(' '));
  const TAKES_HEREDOCS = new Set(['RUN', 'COPY', 'ADD']);

  const dockerfile = {
    name: 'dockerfile',
    languageData: { commentTokens: { line: '#' } },
    startState: () => ({ first: true, continued: false, fresh: true, flags: false, instruction: '', named: [], bodies: [] }),
    token(stream, state) {
      if (stream.sol()) {
        if (state.first) {
          state.first = false;
          if (stream.match(/^\s*%%\w+.*/)) return 'operator';
        }
        if (!state.continued) { state.bodies.push(...state.named); state.named = []; }
        if (state.bodies.length) {
          const body = state.bodies[0];
          const line = body.strips ? stream.string.replace(/^\t+/, '') : stream.string;
          if (line === body.name) { state.bodies.shift(); stream.skipToEnd(); state.fresh = !state.bodies.length; return 'labelName'; }
        } else {
          if (stream.match(/^\s*#.*/)) return /^\s*#\s*(syntax|escape|check)\s*=/i.test(stream.string) ? 'operator' : 'comment';
          if (!state.continued) { state.fresh = true; state.instruction = ''; }
          state.continued = false;
        }
      }
      if (state.bodies.length) return inBody(stream, state.bodies[0]);
      if (stream.eatSpace()) return null;
      if (stream.match(/^[\\`]\s*$/)) { state.continued = true; return 'operator'; }
      if (state.fresh) return atInstruction(stream, state);
      return inArguments(stream, state);
    }
  };

  const atInstruction = (stream, state) => {
    const word = stream.match(/^[A-Za-z]+(?=\s|$)/);
    if (!word) { stream.skipToEnd(); return 'invalid'; }
    state.instruction = word[0].toUpperCase();
    state.fresh = state.instruction === 'ONBUILD';
    state.flags = true;
    return INSTRUCTIONS.has(state.instruction) ? 'keyword' : 'invalid';
  };

  const inArguments = (stream, state) => {
    if (state.flags && stream.match(/^--[a-z-]+/)) { stream.match(/^=(?:[^\s"'$]*)/); return 'attributeName'; }
    if (stream.match(/^\$\{[^}]*\}?/) || stream.match(/^\$\w+/)) return 'variableName.special';
    if (stream.match(/^"(?:[^"\\]|\\.)*"?/) || stream.match(/^'[^']*'?/)) { state.flags = false; return 'string'; }
    if (TAKES_HEREDOCS.has(state.instruction)) {
      const mark = stream.match(/^<<(-?)(["']?)([A-Za-z0-9_.]+)\2/);
      if (mark) {
        state.named.push({ name: mark[3], strips: mark[1] === '-', expands: !mark[2] && state.instruction !== 'RUN' });
        return 'labelName';
      }
    }
    if (stream.match(/^(?:&&|\|\||[|;<>=,[\]])/)) return 'operator';
    if (state.instruction === 'FROM' && stream.match(/^as(?=\s|$)/i)) return 'keyword';
    if (state.instruction === 'HEALTHCHECK' && stream.match(/^(?:CMD|NONE)(?=\s|$)/i)) { state.flags = false; return 'keyword'; }
    if (!stream.match(/^[^\s"'$\\|;&<>=,[\]]+/)) stream.next();
    state.flags = false;
    return (state.instruction === 'ENV' || state.instruction === 'ARG' || state.instruction === 'LABEL') && stream.peek() === '='
      ? 'propertyName' : null;
  };

  const inBody = (stream, body) => {
    if (body.expands && (stream.match(/^\$\{[^}]*\}?/) || stream.match(/^\$\w+/))) return 'variableName.special';
    if (!body.expands) { stream.skipToEnd(); return 'string'; }
    stream.next();
    while (!stream.eol() && stream.peek() !== '$') stream.next();
    return 'string';
  };

  // --- which language a cell is in ---

  const DOCKERFILE = 'text/x-ipython-dockerfile';
  const MAGIC = /^\s*%%(dockerfile|contextfile|container|compose)\b([^\n]*)\n?([^\n]*)/;

  /** The mime type of what a cell of ours holds; null for everybody else's cells. */
  const held = (source, languages, own) => {
    const cell = MAGIC.exec(source.slice(0, 2000));
    if (!cell) return null;
    const [, magic, words, second] = cell;
    if (magic === 'dockerfile') return DOCKERFILE;
    if (magic === 'compose') return 'text/x-yaml';
    if (magic === 'contextfile') {
      const file = words.replace(/--(?:chmod|context)[= ]\S+/g, '').split(/\s+/).find(word => word && !word.startsWith('-')) ?? '';
      const name = file.split('/').pop();
      if (/^(Dockerfile|Containerfile)/.test(name)) return DOCKERFILE;
      const found = name.includes('.') ? languages.findByExtension(name.split('.').pop()) : null;
      return mimeOf(found) ?? 'text/plain';
    }
    const interpreter = /--interpreter[= ](\S+)/.exec(words)?.[1] ?? (second.startsWith('#!') ? second : 'sh');
    if (/python/.test(interpreter)) return own;
    if (/node/.test(interpreter)) return 'text/javascript';
    if (/Rscript|\bR\b/.test(interpreter)) return 'text/x-rsrc';
    return 'text/x-sh';
  };

  const mimeOf = language => !language ? null : Array.isArray(language.mime) ? language.mime[0] : language.mime;

  /** Keep the cells of one notebook in the languages of what they hold. */
  const follow = (panel, languages) => {
    const notebook = panel.content;
    const known = new WeakMap(); // a cell's model → the mime type that we gave it, or null

    const fit = async model => {
      if (model.isDisposed || model.type !== 'code') return;
      const want = held(model.sharedModel.getSource(), languages, notebook.codeMimetype);
      const next = want ?? (known.get(model) ? notebook.codeMimetype : null);
      if (next === null || model.mimeType === next) return;
      // An editor takes languages in the order in which they have loaded, not in the order asked for:
      // whichever the notebook set before must be there first.
      await Promise.all([languages.getLanguage(model.mimeType), languages.getLanguage(next)]);
      if (model.isDisposed || held(model.sharedModel.getSource(), languages, notebook.codeMimetype) !== want) return;
      known.set(model, want);
      model.mimeType = next;
    };
    const again = model => { void fit(model); };
    const all = () => {
      for (const { model } of notebook.widgets) {
        if (!known.has(model)) {
          known.set(model, null);
          model.contentChanged.connect(again);
          model.mimeTypeChanged.connect(again); // the notebook sets its own when the kernel has said its language
        }
        again(model);
      }
    };
    notebook.modelChanged.connect(all);
    notebook.modelContentChanged.connect(all); // new cells have their widgets by then
    void panel.context.ready.then(all);
  };

  // --- outputs of ours whose kernel is gone ---

  const WIDGET = 'application/vnd.jupyter.widget-view+json';

  /**
   * Where ipywidgets says that it has no such model, show the picture that was saved beside it.
   * Its renderer is told of one type only and never looks at the others.
   *
   * It waits two seconds for a model. One that comes just then, as on a slow computer, it has and does not show:
   * it is asked once more.
   */
  const mend = panel => {
    const notebook = panel.content;
    const asked = new WeakSet();
    const found = place => {
      for (const { outputArea } of notebook.widgets) {
        const at = outputArea ? outputArea.widgets.findIndex(each => each.node.contains(place)) : -1;
        if (at < 0) continue;
        const renderer = outputArea.widgets[at].widgets?.find(each => each.node === place);
        return { output: outputArea.model.get(at), renderer };
      }
      return {};
    };
    const settle = async (place, output, renderer) => {
      const manager = asked.has(place) ? null : await renderer?._manager?.promise; // of ipywidgets' own, or of none
      if (manager?.has_model?.(output.data[WIDGET].model_id)) {
        asked.add(place);
        return renderer.renderModel(output);
      }
      const saved = notebook.rendermime.createRenderer('text/html'); // which cleans what is not trusted
      await saved.renderModel(output);
      place.replaceChildren(saved.node);
    };
    const look = places => {
      for (const place of places) {
        const [node] = place.childNodes;
        if (node?.nodeType !== 3 || !/^Error displaying widget/.test(node.data)) continue;
        const { output, renderer } = found(place);
        if (!output || !(WIDGET in output.data) || !/^<div class="nbc /.test(output.data['text/html'] ?? '')) continue;
        void settle(place, output, renderer);
      }
    };
    const observer = new MutationObserver(changes => look(new Set(changes.map(each => each.target))));
    observer.observe(notebook.node, { childList: true, subtree: true });
    panel.disposed.connect(() => observer.disconnect());
  };

  // --- the plugin ---

  const extension = async () => {
    const [{ LanguageSupport, StreamLanguage }, { IEditorLanguageRegistry }, { INotebookTracker }] = await Promise.all([
      page('@codemirror/language'), page('@jupyterlab/codemirror'), page('@jupyterlab/notebook')
    ]);
    return {
      id: 'nbcontain:cells',
      description: 'Colours cells of ours as what they hold; shows the saved pictures of outputs whose kernel is gone.',
      autoStart: true,
      requires: [INotebookTracker, IEditorLanguageRegistry],
      activate: (app, tracker, languages) => {
        languages.addLanguage({
          name: 'nbcontain-dockerfile',
          displayName: 'Dockerfile cell',
          mime: DOCKERFILE,
          load: async () => new LanguageSupport(StreamLanguage.define(dockerfile))
        });
        const attend = panel => { follow(panel, languages); mend(panel); };
        tracker.forEach(attend);
        tracker.widgetAdded.connect((_, panel) => attend(panel));
      }
    };
  };

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB.nbcontain = {
    init: scope => { shared = scope; },
    get: async name => {
      if (name !== './extension') throw new Error(`nbcontain has no module ${name}`);
      const plugin = await extension();
      return () => ({ __esModule: true, default: plugin });
    }
  };
})();
