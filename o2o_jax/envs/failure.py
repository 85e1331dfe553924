"""Failures of environments."""


class EnvironmentFailure(ValueError):
    """Failure of an environment, in one line that names it.

    Args:
      text: what it did wrong.
      number: of the environment, where several step together; None where it is alone.
    """

    def __init__(self, text: str, number: int | None = None) -> None:
        super().__init__(text)
        self.number = number
