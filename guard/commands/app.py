"""The commands, put together. Whatever is wrong with the input costs one line on stderr, never a traceback."""

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import CryptomnesiaError, NotApplicable
from ..questions import QUESTIONS
from .console import EXIT_BAD_INPUT, EXIT_CLEAR, EXIT_NO_VERDICT, EXIT_STOPPED, fail

# typer's base of all usage errors; it has no public name of its own
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]
_HELP = {question.command: question.help for question in QUESTIONS}


class Commands(TyperGroup):
    """The commands that `questions` names; a command's module is imported when it is run or its help is shown."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns all names, in the order of the registry."""
        return list(_HELP)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns the command of that name, or None."""
        if cmd_name in _HELP and cmd_name not in self.commands:
            self.add_command(_load(cmd_name), cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Resolves a name as typer does, but proposes a name for a misspelt one among all commands."""
        if args and args[0] not in _HELP:
            for name in _HELP:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


def _load(name: str) -> Any:
    """Returns the command of that name from its module: a function, or a typer app with commands of its own."""
    command: Any = getattr(import_module(f".{name}", __package__), name)
    if isinstance(command, typer.Typer):
        command.info.help = _HELP[name]
    else:
        function, command = command, typer.Typer(add_completion=False)
        command.command(name, short_help=_HELP[name])(function)
    return typer.main.get_command(command)


app = typer.Typer(
    name="cryptomnesia",
    cls=Commands,
    help="Tells, before an image is made, whether a diffusion model is about to reproduce its training data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cryptomnesia {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def run_app(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code.

    The codes are those of `console`, the same for every command. Raises BrokenPipeError where nobody reads any more.
    """
    try:
        code: Any = app(args=list(arguments), prog_name="cryptomnesia", standalone_mode=False)
        return code if isinstance(code, int) else EXIT_CLEAR
    except (typer.Abort, KeyboardInterrupt):
        return EXIT_STOPPED
    except _UsageError as error:
        if str(error):  # otherwise the help was shown
            fail(_usage(error))
    except NotApplicable as error:
        fail(str(error))
        return EXIT_NO_VERDICT
    except CryptomnesiaError as error:
        fail(str(error))
    except UnicodeDecodeError as error:
        fail(f"some input is not UTF-8 text ({error.reason}): save it as UTF-8")
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # which typer makes a 1 of
            raise stop.__context__ from None
        raise
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return EXIT_BAD_INPUT


def _usage(error: Any) -> str:
    """Returns a usage error in one line, with where to look."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "cryptomnesia"
    return f"{message.rstrip('.')}: see `{path} --help`"
