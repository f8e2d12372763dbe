"""A listener to streamed answers that remembers."""

from holdfast.domain.model_calls import StreamEvent, TextDelta, TextVoid


class Heard:
    """Hears what a model call streams."""

    def __init__(self) -> None:
        self.events: list[StreamEvent] = []

    def __call__(self, event: StreamEvent) -> None:
        self.events.append(event)

    @property
    def text(self) -> str:
        """What a reader has on the screen in the end: what was streamed and not taken back."""
        void = {event.attempt for event in self.events if isinstance(event, TextVoid)}
        left = [event for event in self.events if isinstance(event, TextDelta) and event.attempt not in void]
        return "".join(event.text for event in left)
