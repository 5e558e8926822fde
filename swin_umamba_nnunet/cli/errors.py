"""What a verb raises when the user can put things right."""

from swin_umamba_nnunet._text import printable


class CliError(Exception):
    """One sentence for stderr: what was found, what was expected, what to do.  No traceback is shown."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(printable(message, lines=True))
        self.exit_code = exit_code
