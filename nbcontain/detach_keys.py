"""The keys that leave a program running and give the terminal back: docker's --detach-keys. Pure."""

from __future__ import annotations

from nbcontain.errors import UsageError

DEFAULT = "ctrl-p,ctrl-q"
_CONTROLS = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31} | {chr(97 + n): n + 1 for n in range(26)}


def parse(text: str) -> bytes:
    """The bytes of "ctrl-p,ctrl-q" or "a,b"; "" is no keys at all. Raises UsageError."""
    keys = bytearray()
    for word in text.split(",") if text else ():
        if len(word) == 1 and word.isascii():
            keys += word.encode()
        elif word.startswith("ctrl-") and word[5:] in _CONTROLS:
            keys.append(_CONTROLS[word[5:]])
        else:
            raise UsageError(
                f"--detach-keys {text}: {word!r} is no key", hint=f"a letter, or ctrl-a to ctrl-z: {DEFAULT}"
            )
    return bytes(keys)


class DetachKeys:
    """What is typed, less the detach keys. A beginning of them waits for what comes next, as with docker."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._typed = 0
        """How many of the keys have been typed in a row."""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What of all that was typed so far is to be passed on now, and whether the keys were typed to their end."""
        passed = bytearray()
        for number in data if self._keys else ():
            if number == self._keys[self._typed]:
                self._typed += 1
                if self._typed == len(self._keys):
                    self._typed = 0
                    return bytes(passed), True
                continue
            passed += self._keys[: self._typed]
            self._typed = 0
            if number == self._keys[0]:
                self._typed = 1
                if len(self._keys) == 1:
                    return bytes(passed), True
            else:
                passed.append(number)
        return (bytes(passed) if self._keys else data), False
