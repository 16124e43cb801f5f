"""What `dataclasses` gives, made when it is first needed: for type checkers and inspectors these are dataclasses.

Processes of ours load many types and make values of few. `dataclasses` writes and compiles up to eight functions for
every type while its module is imported, and imports a tenth of the standard library for that: half of what a
command on a terminal or a zygote would take to start. Here a type gets its slots at once, its constructor is compiled
when many values are made, and all other methods are functions that types share.
"""

from __future__ import annotations

from operator import attrgetter

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from dataclasses import MISSING as MISSING
    from dataclasses import Field as Field
    from dataclasses import asdict as asdict
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import fields as fields
    from dataclasses import is_dataclass as is_dataclass
    from dataclasses import replace as replace
else:

    class _Missing:
        def __repr__(self):
            return "MISSING"

    MISSING = _Missing()

    class Field:
        """One field of a type, with the attributes of dataclasses.Field."""

        __slots__ = ("compare", "default", "default_factory", "hash", "init", "metadata", "name", "repr", "type")

        def __init__(self, default, default_factory, init, repr, hash, compare, metadata):
            self.name = self.type = None
            self.default, self.default_factory, self.init = default, default_factory, init
            self.repr, self.hash, self.compare, self.metadata = repr, hash, compare, metadata

    def field(
        *, default=MISSING, default_factory=MISSING, init=True, repr=True, hash=None, compare=True, metadata=None
    ):
        """A field that says more than its default."""
        return Field(default, default_factory, init, repr, hash, compare, metadata or {})

    def dataclass(cls=None, /, *, frozen=False, slots=False, kw_only=False, eq=True):
        """Class decorator: a constructor of the annotated names, equality, hash and repr; as dataclasses has it."""
        if cls is None:
            return lambda cls: _made(cls, frozen, slots, kw_only, eq)
        return _made(cls, frozen, slots, kw_only, eq)

    def fields(value):
        """The fields of a type or of a value, in the order of their definition."""
        return tuple(value.__value_fields__.values())

    def is_dataclass(value):
        """Whether this is such a type or a value of one."""
        return hasattr(value, "__value_fields__")

    def replace(value, /, **changes):
        """A value like this one, with these fields changed."""
        kind = type(value)
        quick = _REPLACING.get(kind)
        if quick is not None:
            return quick(value, **changes)
        names, values = kind.__value_init__
        return kind(**{**dict(zip(names, values(value), strict=True)), **changes})

    def asdict(value):
        """A value as a dictionary, and those in it too, also in lists, tuples and dictionaries."""
        return {name: _plain(getattr(value, name)) for name in value.__value_fields__}

    def _plain(value):
        if hasattr(type(value), "__value_fields__"):
            return asdict(value)
        if isinstance(value, list | tuple):
            return type(value)([_plain(each) for each in value])
        return {key: _plain(each) for key, each in value.items()} if isinstance(value, dict) else value

    def _made(cls, frozen, slots, kw_only, eq):
        found = {}
        for base in cls.__mro__[-1:0:-1]:
            found.update(base.__dict__.get("__value_fields__", {}))
        positional = [] if kw_only else [name for name in found if name in getattr(cls, "__match_args__", ())]
        for name, hint in cls.__annotations__.items():
            default = cls.__dict__.get(name, MISSING)
            each = default if isinstance(default, Field) else Field(default, MISSING, True, True, None, True, {})
            each.name, each.type = name, hint
            found[name] = each
            if not kw_only and each.init and name not in positional:
                positional.append(name)
            if isinstance(default, Field):
                if default.default is MISSING or slots:
                    delattr(cls, name)
                else:
                    setattr(cls, name, default.default)
        own = cls.__dict__
        given = tuple(each.name for each in found.values() if each.init)
        methods = {
            "__value_fields__": found,
            "__value_init__": (given, attrgetter(*given) if len(given) > 1 else _few(given)),
            "__dataclass_fields__": _Fields(),
            "__signature__": _Signature(),
            "__match_args__": tuple(positional),
        }
        if "__init__" not in own:
            methods["__init__"] = _first_init(frozen, found, tuple(positional))
        if "__repr__" not in own:
            methods["__repr__"] = _repr
        if eq and "__eq__" not in own:
            methods["__value_key__"] = _key(each.name for each in found.values() if each.compare)
            methods["__eq__"] = _eq
        if eq and own.get("__hash__") is None:
            hashed = (each.name for each in found.values() if (each.compare if each.hash is None else each.hash))
            methods["__value_hash_key__"] = _key(hashed)
            methods["__hash__"] = _hash if frozen else None
        if frozen:
            methods |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
            if slots:
                methods |= {"__getstate__": _state, "__setstate__": _restore}
        if slots:
            return _slotted(cls, found, methods)
        for name, method in methods.items():
            setattr(cls, name, method)
        return cls

    def _slotted(cls, found, methods):
        """The same class again, with slots: they cannot be added to one that exists."""
        inherited = {name for base in cls.__mro__[1:-1] for name in base.__dict__.get("__slots__", ())}
        names = tuple(name for name in found if name not in inherited)
        rest = {name: each for name, each in cls.__dict__.items() if name not in (*names, "__dict__", "__weakref__")}
        made = type(cls)(cls.__name__, cls.__bases__, {**rest, **methods, "__slots__": names})
        made.__qualname__ = cls.__qualname__
        return made

    def _key(names):
        names = tuple(names)
        return staticmethod(attrgetter(*names) if names else _nothing)

    def _nothing(_):
        return ()

    def _few(names):
        """For none and one: attrgetter gives no tuple."""
        return lambda value: tuple(getattr(value, name) for name in names)

    # --- the constructor ---

    def _first_init(frozen, found, positional):
        """A constructor for the first few values; then it compiles one that is quicker, and puts it in its place."""
        count = 0

        def __init__(self, *args, **named):  # noqa: N807
            nonlocal count
            count += 1
            if count > _FEW or hasattr(self, "__post_init__") or not _filled(self, found, positional, args, named):
                owner = next(base for base in type(self).__mro__ if base.__dict__.get("__init__") is __init__)
                _compiled(owner, frozen)(self, *args, **named)

        return __init__

    _FEW = 12
    """To compile a constructor takes as long as to make that many values without it."""

    def _filled(self, found, positional, args, named):
        """Set the fields as a constructor would; False if these are not its arguments."""
        values = dict(zip(positional, args, strict=False))
        if len(args) > len(positional) or values.keys() & named.keys():
            return False
        values |= named
        for name, each in found.items():
            if name in values and each.init:
                value = values.pop(name)
            elif each.default_factory is not MISSING:
                value = each.default_factory()
            elif each.default is not MISSING:
                value = each.default
            elif each.init:
                return False
            else:
                continue
            object.__setattr__(self, name, value)
        return not values

    _REPLACING = {}
    """What `replace` is for a frozen type of which many values were made, and whose constructor only sets fields."""

    def _open(cls):
        """A type of the same layout whose fields can be set: to set one behind a refusal takes eight times as long."""
        if "__slots__" not in cls.__dict__:
            return None
        # A generic type asks for its bases as they were written.
        kept = {name: cls.__dict__[name] for name in ("__slots__", "__orig_bases__") if name in cls.__dict__}
        return type(cls)(cls.__name__, cls.__bases__, {**kept, "__setattr__": object.__setattr__})

    def _compiled(cls, frozen):
        found = cls.__value_fields__
        scope = {"MISSING": MISSING, "_set": object.__setattr__, "_cls": cls, "_open": _open(cls) if frozen else None}
        needed, named, body = [], [], []
        for name, each in found.items():
            value = name
            if each.default_factory is not MISSING:
                scope[f"_make_{name}"] = each.default_factory
                value = f"_make_{name}() if {name} is MISSING else {name}" if each.init else f"_make_{name}()"
            elif each.default is not MISSING:
                scope[f"_default_{name}"] = each.default
                value = name if each.init else f"_default_{name}"
            elif not each.init:
                continue
            if each.init:
                default = "" if each.default is MISSING else f"=_default_{name}"
                default = default if each.default_factory is MISSING else "=MISSING"
                (needed if name in cls.__match_args__ else named).append(name + default)
            body.append((name, value))
        body = _filling(body, frozen, scope["_open"] is not None)
        if hasattr(cls, "__post_init__"):
            body.append("self.__post_init__()")
        elif scope["_open"] is not None and len(cls.__value_init__[0]) == len(found):
            _REPLACING[cls] = _replacing(cls, scope["_open"])
        parameters = ", ".join(["self", *needed, *(["*", *named] if named else [])])
        text = f"def __init__({parameters}):\n " + "\n ".join(body or ["pass"])
        exec(text, scope)  # noqa: S102 - of names that are in this program's source
        init = scope["__init__"]
        init.__qualname__, init.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
        init.__annotations__ = {each.name: each.type for each in found.values() if each.init} | {"return": "None"}
        cls.__init__ = init
        return init

    def _filling(fields, frozen, is_open):
        """The lines of a constructor that set the fields."""
        plainly = [f"self.{name} = {value}" for name, value in fields]
        if not frozen:
            return plainly
        each = [f"_set(self, {name!r}, {value})" for name, value in fields]
        if not is_open or not each:
            return each
        opened = ["_set(self, '__class__', _open)", *plainly, "self.__class__ = _cls"]
        # A type that inherits this constructor has another layout, and is not opened by it.
        return ["if self.__class__ is _cls:", *(f" {line}" for line in opened), "else:", *(f" {line}" for line in each)]

    def _replacing(cls, open_type):
        """`replace`, to be compiled when it is first called."""

        def first(value, **changes):
            names = cls.__value_init__[0]
            scope = {"_cls": cls, "_open": open_type, "_new": object.__new__, "MISSING": MISSING}
            body = [f"_made.{name} = _old.{name} if {name} is MISSING else {name}" for name in names]
            given = "".join(f", {name}=MISSING" for name in names)
            lines = ["_made = _new(_open)", *body, "_made.__class__ = _cls", "return _made"]
            start = f"def replaced(_old, /{', *' if given else ''}{given}):"
            exec(f"{start}\n " + "\n ".join(lines), scope)  # noqa: S102 - names of this source
            _REPLACING[cls] = scope["replaced"]
            return scope["replaced"](value, **changes)

        return first

    # --- what types share ---

    def _repr(self):
        shown = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
        return f"{type(self).__qualname__}({shown})"

    def _eq(self, other):
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self.__value_key__(self) == self.__value_key__(other)

    def _hash(self):
        return hash(self.__value_hash_key__(self))

    def _refuse_to_set(self, name, value):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def _refuse_to_delete(self, name):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def _state(self):
        return [getattr(self, name) for name in self.__value_fields__]

    def _restore(self, state):
        for name, value in zip(self.__value_fields__, state, strict=True):
            object.__setattr__(self, name, value)

    class _Fields:
        """What dataclasses' own functions look for, made when they do."""

        def __get__(self, value, cls):
            import dataclasses

            def real(each):
                names = ("init", "repr", "hash", "compare", "metadata")
                given = {name: getattr(each, name) for name in names}
                for name in ("default", "default_factory"):
                    if getattr(each, name) is not MISSING:
                        given[name] = getattr(each, name)
                return (each.name, each.type, dataclasses.field(**given))

            # Keyword-only, since fields with and without defaults may then come in any order.
            twin = dataclasses.make_dataclass(cls.__name__, [real(each) for each in fields(cls)], kw_only=True)
            return twin.__dataclass_fields__

    class _Signature:
        """What inspect.signature looks for."""

        def __get__(self, value, cls):
            import inspect

            owner = next(base for base in cls.__mro__ if "__init__" in base.__dict__)
            if owner.__init__.__name__ == "__init__" and owner.__init__.__closure__:
                _compiled(owner, owner.__setattr__ is _refuse_to_set)
            parameters = list(inspect.signature(owner.__init__).parameters.values())[1:]
            return inspect.Signature(parameters)
