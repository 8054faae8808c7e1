"""`ServerHooks`: calls the hooks of plugins for one server, with the options of that server."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.errors import ConfigError, PluginError
from asyncapy_core.foreign.cancellation import ForeignScope
from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.logs import FailureLog, describe, reason_of
from asyncapy_core.plugins.bound_hook import BoundHook, report_failure, split_failure
from asyncapy_core.plugins.exit_stacks import OwnedStack, ServerCancelled
from asyncapy_core.plugins.hook_results import refuse_coroutine
from asyncapy_core.plugins.implementations import Implementation, InvalidPlugin
from asyncapy_core.plugins.options import validate_options
from asyncapy_core.plugins.ordering import in_order
from asyncapy_core.routing.handler import answering_function

if TYPE_CHECKING:
    from pydantic import BaseModel

    from asyncapy_core.interfaces import ServerInterface
    from asyncapy_core.plugins.manager import PluginManager, RawOptions
    from asyncapy_core.plugins.record import PluginRecord
    from asyncapy_core.routing.handler import Handler, HandlerFunction
    from asyncapy_core.routing.router import Route

SETUP_SECONDS: Final = 60.0
"""The time that a plugin has for its setup, and for its shutdown, unless ``plugins_require`` names it."""

SHIELDED_SECONDS: Final = 10.0
"""The time that a shutdown in a shield has after its cancellation."""

_TOO_LONG: Final = f"was in setup for more than {SETUP_SECONDS:g} s"


class ServerHooks:
    """The hooks of one server.

    Plugins call the hooks that they have brought with `call` and `acall`.

    Args:
        server: the server.
        plugins: its plugins.
        options: returns the options of the plugins, by plugin.
    """

    def __init__(self, server: ServerInterface, plugins: PluginManager, options: Callable[[], RawOptions]) -> None:
        self._server = server
        self._plugins = plugins
        self._raw_options = options
        self._valid_for: RawOptions | None = None
        self._valid: dict[PluginRecord, BaseModel | None] = {}
        self._own: dict[str, list[BoundHook]] = {}
        self._wraps: list[BoundHook] | None = None
        self._set_up: list[PluginRecord] = []
        self._left_out: list[PluginRecord] = []
        self._failures = FailureLog()

    def functions(self, hook: str) -> list[BoundHook]:
        """Return the functions to call for a hook, in their order: those of the plugins, then of the application.

        Raises:
            ConfigError: the options of a plugin are wrong or incomplete.
        """
        found: list[BoundHook] = []
        for record, implementations in in_order(self._usable(), hook):
            required = self._is_required(record)
            try:
                for implementation in implementations:
                    bound = {"server": self._server, "options": self._options_of(record)}
                    found.append(BoundHook(implementation, record.title, hook, bound, is_required=required))
            except InvalidPlugin as error:
                self._plugins.quarantine(record, str(error))
        return found + self._own.get(hook, [])

    def add(self, hook: str, implementation: Implementation) -> None:
        """Add a function of the application, to be called after those of the plugins.

        Raises:
            RuntimeError: the server serves already.
        """
        if self.have_begun:
            raise RuntimeError(f"this server is serving; use {implementation.title} before, or in its setup")
        own = BoundHook(implementation, implementation.title, hook, {"server": self._server}, is_own=True)
        self._own.setdefault(hook, []).append(own)

    def _options_of(self, record: PluginRecord) -> BaseModel | None:
        """Return the options of a plugin; all its hooks get the same object until the configuration changes."""
        raw = self._raw_options()
        if raw is not self._valid_for:
            self._valid_for = raw
            self._valid.clear()
        if record not in self._valid:
            self._valid[record] = validate_options(record, raw)
        return self._valid[record]

    async def setup(self, patience: trio.CancelScope, note: Callable[[str], object] = lambda _: None) -> None:
        """Call `asyncapy_setup` of one plugin after the other. A plugin that fails is left out of this run.

        Args:
            patience: is cancelled if a plugin takes longer than `SETUP_SECONDS`, unless ``plugins_require`` names it.
            note: called with the title of each plugin before it is set up.

        Raises:
            PluginError: a plugin failed that ``plugins_require`` names, or that has raised a PluginError or a
                ConfigError; its exception is the cause.
        """
        steps = in_order(self._usable(), "asyncapy_setup")
        for number, (record, implementations) in enumerate(steps, 1):
            if record in self._left_out or self._lacks(record):
                continue
            if not self._is_required(record):
                patience.deadline = trio.current_time() + SETUP_SECONDS
            note(f"{record.title} is in setup")
            try:
                await self._set_up_one(record, implementations)
            except BaseException as error:  # a plugin may raise anything
                if split_failure(error)[0] is None:
                    self._leave_out(record, f"failed in setup: {reason_of(error)}", error)
                    continue
                if patience.cancel_called:
                    self._leave_out(record, _TOO_LONG)
                raise
            finally:
                patience.deadline = math.inf
            if all(later is not record for later, _ in steps[number:]):
                self._set_up.append(record)
            if patience.cancel_called:  # its setup was shielded from the cancellation, or has caught it
                self._leave_out(record, _TOO_LONG)
                await trio.lowlevel.checkpoint_if_cancelled()

    async def _set_up_one(self, record: PluginRecord, implementations: Iterable[Implementation]) -> None:
        """Call the setup of a plugin, with an exit stack of its own; if it fails, leave that stack at once."""
        whole = self._server.exit_stack
        own = OwnedStack(record.title, self._server.log)
        self._server.exit_stack = await whole.enter_async_context(own)
        try:
            options = self._options_of(record)
            for implementation in implementations:
                await implementation.finish(implementation(server=self._server, options=options))
        except BaseException as error:  # a plugin may raise anything
            left = await own.leave(error)
            if isinstance(left, ServerCancelled) and left.__cause__ is not None:
                raise left.__cause__ from None
            raise
        finally:
            self._server.exit_stack = whole

    def _usable(self) -> list[PluginRecord]:
        return [record for record in self._plugins.loaded if record not in self._left_out]

    def _is_required(self, record: PluginRecord) -> bool:
        return record.name in self._server.config.plugins_require

    def _lacks(self, record: PluginRecord) -> bool:
        """Return True, and leave out the plugin, if it requires one that was left out."""
        lacking = next((each for each in self._left_out if each.name in record.requires), None)
        if lacking is not None:
            self._leave_out(record, f"requires {lacking.title}, which was left out")
        return lacking is not None

    def _leave_out(self, record: PluginRecord, reason: str, error: BaseException | None = None) -> None:
        """Leave out a plugin until the next run, and log the reason.

        Raises:
            PluginError: ``plugins_require`` names it, or it has raised a PluginError or a ConfigError.
        """
        self._server.log.debug("{Server} %s %s", record.title, reason, exc_info=error)
        if self._is_required(record) or issubclass(type(error), (PluginError, ConfigError)):
            raise PluginError(f"{record.title} {reason}") from error
        self._left_out.append(record)
        self._server.log.error(
            "{Server} %s %s; the server starts without it, as plugins_require does not name it", record.title, reason
        )

    def forget_failures(self) -> None:
        """Try the plugins again that were left out: a new run begins."""
        self._left_out.clear()

    @contextlib.contextmanager
    def added_for_now(self) -> Iterator[None]:
        """Remove the functions at the end of the block that a setup has added in it: the next setup adds them again."""
        own = {hook: list(functions) for hook, functions in self._own.items()}
        try:
            yield
        finally:
            self._own = own

    async def shutdown(
        self, force: Callable[[trio.CancelScope, float], object] = lambda *_: None
    ) -> list[BaseException]:
        """Call `asyncapy_shutdown` of all plugins that were set up, the last first; log and return their exceptions.

        Args:
            force: is called with the scope of each call, and the time from which shields inside may be removed.
        """
        failures: list[BaseException] = []
        steps = in_order(reversed(self._set_up), "asyncapy_shutdown", backward=True)
        self._set_up.clear()
        for record, implementations in steps:
            for implementation in reversed(implementations):
                try:
                    await self._shut_down(record, implementation, force)
                except BaseException as error:  # a plugin may raise anything
                    if split_failure(error)[0] is not None:
                        raise
                    self._server.log.error("{Server} %s failed in shutdown: %s", record.title, describe(error))
                    self._server.log.debug("{Server} %s failed in shutdown", record.title, exc_info=error)
                    failures.append(error)
        return failures

    async def _shut_down(
        self,
        record: PluginRecord,
        implementation: Implementation,
        force: Callable[[trio.CancelScope, float], object],
    ) -> None:
        with ForeignScope(trio.CancelScope()) as patience:
            if not self._is_required(record):
                patience.deadline = trio.current_time() + SETUP_SECONDS
            force(patience, patience.deadline + SHIELDED_SECONDS)
            try:
                await implementation.finish(implementation(server=self._server, options=self._options_of(record)))
            finally:
                force(patience, math.inf)
        if patience.cancelled_caught:
            raise TimeoutError(f"it was cancelled after {SETUP_SECONDS:g} s")

    def adapt(self, route: Route) -> HandlerFunction | None:
        """Return the handler that a plugin makes of a function, or None.

        Raises:
            PluginError: a plugin raised, or returned an object that is no handler; the message names it, or is that of
                the plugin's own PluginError.
        """
        for hook in self.functions("asyncapy_adapt"):
            try:
                found: HandlerFunction | None = refuse_coroutine(hook(function=route.function, route=route))
                if found is not None:
                    answering_function(found)
                    return found
            except BaseException as error:  # a plugin may raise anything
                if is_from_signal(error) or type(error) is PluginError:
                    raise
                raise hook.failure(error, f"the handler {route.name!r}") from error
        return None

    @property
    def have_begun(self) -> bool:
        """Whether the server has been set up, and has not ended."""
        return self._wraps is not None

    def begin(self) -> None:
        """Wrap handlers from now on, as the server has been set up."""
        self._wraps = self.functions("asyncapy_wrap")

    def end(self) -> None:
        """Note that the server has ended."""
        self._wraps = None

    def wrap(self, handler: Handler) -> None:
        """Put the wraps of plugins and of the application around a handler, once the server has been set up.

        Raises:
            PluginError: a required plugin failed.
        """
        run = handler.inner
        for hook in reversed(self._wraps or ()):
            try:
                found = hook(handler=handler, call=run)
                try:
                    run = run if refuse_coroutine(found) is None else answering_function(found)
                except TypeError as error:
                    if hook.is_own:
                        raise TypeError(f"{hook.title} for the handler {handler.name!r}: {error}") from None
                    raise
            except BaseException as error:  # a plugin may raise anything
                if hook.is_own or is_from_signal(error):
                    raise
                if hook.is_required:
                    raise hook.failure(error, f"the handler {handler.name!r}") from error
                self._server.log.error("{Server} %s", hook.failure(error, f"the handler {handler.name!r}"))
        handler.run = run

    def call(self, hook: str, **arguments: Any) -> list[Any]:
        """Call a hook that a plugin has brought with `asyncapy_hookspecs`, in all plugins that implement it.

        Args:
            hook: the name of the hook.
            arguments: its arguments. ``server`` and ``options`` need not be given: each plugin gets its own options.

        Returns:
            The results that are not None, in the order of the plugins; at most one if the hook has ``firstresult``. The
            exception of an implementation is logged with the name of its plugin, at most one a second.

        Raises:
            PluginError: no plugin has brought this hook.
            TypeError: an argument is missing or unknown.
        """
        results: list[Any] = []
        first = self._check_call(hook, arguments)
        for function in self.functions(hook):
            with self._logging(function):
                results += _given(refuse_coroutine(function(**arguments)))
            if first and results:
                break
        return results

    async def acall(self, hook: str, **arguments: Any) -> list[Any]:
        """Do as `call`, for a hook whose implementations are plain or ``async``; one is awaited after the other."""
        results: list[Any] = []
        first = self._check_call(hook, arguments)
        for function in self.functions(hook):
            with self._logging(function):
                results += _given(await function.call(**arguments))
            if first and results:
                break
        return results

    def _check_call(self, hook: str, arguments: Mapping[str, Any]) -> bool:
        """Check the arguments of a call, and return whether the first result ends it."""
        specification = self._plugins.specification(hook)
        if specification is None:
            raise PluginError(f"no plugin has brought a hook {hook!r}; return it from asyncapy_hookspecs")
        wanted = {*specification.arguments}
        if not wanted - {"server", "options"} <= arguments.keys() <= wanted:
            raise TypeError(
                f"the hook {hook!r} has the arguments {', '.join(specification.arguments) or 'none'}; "
                f"got {', '.join(arguments) or 'none'}"
            )
        return specification.first

    @contextlib.contextmanager
    def _logging(self, function: BoundHook) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # a plugin may raise anything
            if split_failure(error)[0] is not None:
                raise
            log = logging.LoggerAdapter(self._server.log)
            report_failure(self._failures, log, f"{{Server}} {function.title} in {function.hook}", error)


def _given(result: Any) -> list[Any]:
    return [] if result is None else [result]
