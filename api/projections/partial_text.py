"""A text that comes in pieces, where the protocol can take none of them back."""


class PartialText:
    """What was told of a text that comes in pieces: from its first that can be seen on, since a step may have no other.

    `told`: all of it so far; empty, as long as nothing was.
    """

    def __init__(self) -> None:
        self.told = ""
        self._held = ""
        self._step: int | None = None

    def add(self, step: int, piece: str) -> str:
        """What is to be told now that a piece has come."""
        if step != self._step and not self.told:
            self._held = ""
        self._step = step
        if not self.told and not (self._held + piece).strip():
            self._held += piece
            return ""
        piece, self._held = self._held + piece, ""
        self.told += piece
        return piece

    def rest(self, whole: str) -> str | None:
        """What is still to be told of the whole text; None: what was told is no beginning of it."""
        return whole[len(self.told) :] if whole.startswith(self.told) else None
