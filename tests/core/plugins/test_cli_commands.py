"""Commands that other distributions bring to the command ``asyncapy``."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess

    from core.plugins.conftest import Site

DEPLOY = """
import sys
import click

@click.command()
@click.argument("place", required=False)
@click.option("--dry-run", is_flag=True, help="Only say it.")
def deploy(place, dry_run):
    \"\"\"Deploy a server.\"\"\"
    imported = sorted(name for name in sys.modules if name.startswith("other"))
    click.echo(f"deployed to {place}, {dry_run}, {imported}")
"""


OURS = ["client", "describe"]
"""The commands of asyncapy-typed."""


def entry(name: str, value: str) -> str:
    return f"[asyncapy.commands]\n{name} = {value}\n"


def install(site: Site, name: str, source: str, value: str = "") -> None:
    """Install a distribution with a command of the same name."""
    site.install(name, source, entries=entry(name, value or f"{name}:{name}"))


def refused(site: Site, *arguments: str, status: int = 1, **environ: str) -> str:
    done = site.asyncapy(*arguments, **environ)
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    assert not done.stdout
    return done.stderr


def complete(site: Site, *words: str) -> list[str]:
    done = run_completion(site, *words)
    assert not done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def run_completion(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; sys.argv = ['asyncapy']; from asyncapy_cli.main import main; main()"
    line = " ".join(["asyncapy", *words])
    environ = {"_ASYNCAPY_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    return site.run("-c", program, **environ)


def test_a_command_runs_with_its_arguments_and_no_other_is_imported(site: Site) -> None:
    install(site, "deploy", DEPLOY)
    install(site, "other", "raise SystemExit(3)")
    done = site.asyncapy("deploy", "home", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "deployed to home, True, []\n"


def test_a_command_has_a_help_of_its_own(site: Site) -> None:
    install(site, "deploy", DEPLOY)
    done = site.asyncapy("deploy", "--help")
    assert done.returncode == 0
    assert re.search(r"^Usage: .* deploy \[OPTIONS\] \[PLACE\]$", done.stdout, re.MULTILINE)
    assert "Deploy a server." in done.stdout
    assert "--nonsense" in refused(site, "deploy", "--nonsense", status=2)


def test_the_help_lists_ten_commands_and_imports_neither_them_nor_the_core(site: Site) -> None:
    for number in range(10):
        install(site, f"deploy{number}", DEPLOY)
    done = site.run("-X", "importtime", "-m", "asyncapy_cli", "--help")
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in imported
    assert not {"trio", "pydantic", "asyncapy_core", "rich", *(f"deploy{number}" for number in range(10))} & imported
    for number in range(10):
        assert re.search(rf"^  deploy{number} +Brought by deploy{number} 1\.0\.$", done.stdout, re.MULTILINE)


def listed(site: Site) -> list[str]:
    """Return the commands of other distributions that the help lists, without those of asyncapy-typed."""
    names = site.asyncapy("--help").stdout.partition("other distributions")[2]
    return [name for name in re.findall(r"^  (\S+)", names, re.MULTILINE) if name not in OURS]


def test_the_help_lists_the_commands_of_asyncapy_typed(site: Site) -> None:
    assert listed(site) == []
    assert re.search(r"^  describe +Brought by asyncapy-typed ", site.asyncapy("--help").stdout, re.MULTILINE)


def test_a_function_may_return_the_command(site: Site) -> None:
    source = """
    import click

    def make():
        group = click.Group("anything")

        @group.command()
        def home():
            print("at home")

        return group
    """
    install(site, "deploy", source, "deploy:make")
    assert site.asyncapy("deploy", "home").stdout == "at home\n"


BROKEN = {
    "an import": ("import nowhere", "deploy", "import failed with ModuleNotFoundError: No module named 'nowhere'"),
    "an exit at its import": ("raise SystemExit(3)", "deploy", "import failed with SystemExit: 3"),
    "no such object": ("", "deploy:deploy", "import failed with AttributeError: "),
    "a module": ("", "deploy", "deploy gives <module 'deploy' from "),
    "a function that raises": (
        "def make(): raise ValueError('why')",
        "deploy:make",
        "deploy:make raised ValueError: why",
    ),
    "a function of another object": ("def make(): return 3", "deploy:make", "deploy:make gives 3 and no click.Command"),
    "an async function": ("async def make(): return 3", "deploy:make", "deploy:make gives <coroutine object make "),
    "a callable object": (
        "class App:\n    def __call__(self): raise SystemExit(0)\napp = App()",
        "deploy:app",
        "deploy:app gives <deploy.App object ",
    ),
    "a lying object": (
        "class Liar:\n    @property\n    def __class__(self): raise OSError('no')\napp = Liar()",
        "deploy:app",
        "import failed with OSError: no",
    ),
    "a value that names nothing": ("", "!", "its entry point '!' is neither MODULE nor MODULE:OBJECT"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_command_is_named_and_the_others_work(site: Site, fault: str) -> None:
    source, value, reason = BROKEN[fault]
    install(site, "deploy", source, value)
    install(site, "other", DEPLOY, "other:deploy")
    message = refused(site, "deploy")
    assert f"command 'deploy' of deploy 1.0 is quarantined: {reason}" in message
    assert "never awaited" not in message
    assert site.asyncapy("other").returncode == 0
    assert site.asyncapy("--help").returncode == 0
    doctor = site.asyncapy("plugins", "doctor")
    assert doctor.returncode == 1
    assert f"command 'deploy' of deploy 1.0 is quarantined: {reason}" in doctor.stdout
    if "`asyncapy plugins doctor` shows the traceback." in message:
        assert "Traceback" in doctor.stderr


def test_a_command_that_raises_is_named_with_its_traceback(site: Site) -> None:
    install(site, "deploy", DEPLOY.replace("click.echo", "raise ValueError"))
    done = site.asyncapy("deploy")
    assert done.returncode == 1
    assert "asyncapy_cli" not in done.stderr
    assert "click/" not in done.stderr
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    last = "asyncapy: command 'deploy' of deploy 1.0 raised this exception; tell its authors, or uninstall it"
    assert done.stderr.splitlines()[-1] == last


@pytest.mark.parametrize(
    ("statement", "status", "message"),
    [
        ("raise click.UsageError('no place')", 2, "Error: no place"),
        ("from asyncapy_core.errors import ConfigError; raise ConfigError('wrong')", 1, "asyncapy: wrong"),
        ("open('/nowhere/at/all')", 74, "asyncapy: [Errno 2] No such file or directory: '/nowhere/at/all'"),
        ("raise KeyboardInterrupt", 130, ""),
        ("sys.exit(5)", 5, ""),
        ("sys.exit('bad')", 1, "bad"),
        ("raise ConnectionRefusedError(111, 'refused')", 1, "ConnectionRefusedError: [Errno 111] refused"),
        ("raise BrokenPipeError(32, 'closed')", 141, ""),
        ("raise OSError(28, 'full')", 74, "asyncapy: the output cannot be written: full"),
    ],
)
def test_the_exit_status_of_a_command_is_as_that_of_our_own(
    site: Site, statement: str, status: int, message: str
) -> None:
    install(site, "deploy", DEPLOY + f"    {statement}\n")
    done = site.asyncapy("deploy")
    assert done.returncode == status, done
    assert message in done.stderr
    if not message:
        assert not done.stderr.strip()


def test_a_command_of_two_distributions_belongs_to_neither(site: Site) -> None:
    site.install("one", DEPLOY, entries=entry("deploy", "one:deploy"))
    site.install("two", DEPLOY, entries=entry("deploy", "two:deploy"))
    assert "is claimed by one and two; uninstall one of them" in refused(site, "deploy")
    assert "Claimed by one 1.0 and two 1.0, and not used: uninstall one." in site.asyncapy("--help").stdout
    assert "'deploy' of two 1.0 is quarantined" in site.asyncapy("plugins", "doctor").stdout


def test_a_command_that_a_distribution_has_twice_is_named(site: Site) -> None:
    entries = entry("deploy", "one:deploy") + "deploy = one:other\n"
    site.install("one", DEPLOY, entries=entries)
    assert "one has two commands 'deploy'; install it again" in refused(site, "deploy")


def test_a_command_of_our_name_is_not_used(site: Site) -> None:
    site.install("one", DEPLOY, entries=entry("config", "one:deploy"))
    assert "check" in site.asyncapy("config", "--help").stdout
    help_text = " ".join(site.asyncapy("--help").stdout.split())
    assert "config Brought by one 1.0, but not used: asyncapy has this command itself." in help_text
    doctor = site.asyncapy("plugins", "doctor").stdout
    assert "command 'config' of one 1.0 is quarantined: asyncapy has a command 'config' itself; uninstall one" in doctor
    assert complete(site, "conf") == ["config"]


def test_the_lists_of_plugins_name_commands_and_the_plugins_beside_them(site: Site) -> None:
    both = "[asyncapy]\nboth = both\n" + entry("deploy", "both:deploy")
    site.install("both", DEPLOY, entries=both)
    for name in ("both", "deploy"):
        message = refused(site, "deploy", ASYNCAPY_PLUGINS_DENY=name)
        assert "command 'deploy' of both 1.0 is denied: it is on the deny list" in message
        assert "deploy" not in site.asyncapy("--help", ASYNCAPY_PLUGINS_DENY=name).stdout
        assert site.asyncapy("deploy", ASYNCAPY_PLUGINS_ALLOW=name).returncode == 0
        assert "allow list" not in site.asyncapy("plugins", ASYNCAPY_PLUGINS_ALLOW=name).stderr
    assert "it is not on the allow list" in refused(site, "deploy", ASYNCAPY_PLUGINS_ALLOW="codecs")
    assert "did you mean 'deploy'?" in refused(site, "deploy", ASYNCAPY_PLUGINS_DENY="deplo")
    assert site.asyncapy("--help", ASYNCAPY_PLUGINS_DENY="deplo").returncode == 0
    assert "is no name of a plugin" in refused(site, "deploy", ASYNCAPY_PLUGINS_DENY="'deploy'")


def test_a_server_accepts_a_deny_list_with_the_name_of_a_command(site: Site) -> None:
    install(site, "deploy", "raise SystemExit")
    program = "from asyncapy_core import Server, Filters; Server(plugins_deny='deploy'); print(Filters.Fields.__name__)"
    assert site.prints(program) == "Fields\n"


def test_the_shell_completes_names_without_an_import_and_options_with_one(site: Site) -> None:
    install(site, "deploy", "print('noise')\n" + DEPLOY)
    install(site, "depart", "raise SystemExit(3)")
    assert complete(site, "dep") == ["depart", "deploy"]
    assert {"serve", "keys", "deploy"} <= set(complete(site, ""))
    assert complete(site, "deploy", "--d") == ["--dry-run"]
    assert complete(site, "depart", "--d") == []
    assert "--version" in complete(site, "--")


def test_the_list_of_plugins_shows_the_plugin_that_brings_a_command(site: Site) -> None:
    site.install(
        "two", DEPLOY, entries="[asyncapy]\na = click\nz = two\n" + entry("z", "two:deploy") + "y = two:deploy\n"
    )
    install(site, "deploy", DEPLOY)
    install(site, "broken", "import nowhere")
    done = site.asyncapy("plugins", "--json")
    commands = {record["name"]: record["commands"] for record in json.loads(done.stdout) if record["commands"]}
    assert sorted(commands.pop("typed")) == OURS
    assert commands == {"a": ["y"], "z": ["z"], "deploy": ["deploy"], "broken": ["broken"]}
    states = {record["name"]: record["state"] for record in json.loads(done.stdout)}
    assert (states["deploy"], states["broken"]) == ("loaded", "quarantined")
    assert re.search(r"^z +command +asyncapy z *$", site.asyncapy("plugins").stdout, re.MULTILINE)
    assert re.search(r"^command +asyncapy deploy *$", site.asyncapy("plugins", "deploy").stdout, re.MULTILINE)


def test_the_doctor_counts_commands(site: Site) -> None:
    install(site, "deploy", DEPLOY)
    assert re.fullmatch(r"\d plugins and 3 commands, no problems found.\n", site.asyncapy("plugins", "doctor").stdout)
    install(site, "other", DEPLOY, "other:deploy")
    assert re.fullmatch(r"\d plugins and 4 commands, no problems found.\n", site.asyncapy("plugins", "doctor").stdout)


def test_metadata_that_cannot_be_read_hides_no_command(site: Site) -> None:
    install(site, "deploy", DEPLOY)
    for number, data in enumerate([b"\xff", b"[asyncapy.commands]\nno equals sign\n", b""]):
        info = site.install(f"broken{number}")
        (info / "entry_points.txt").write_bytes(data)
    (site.folder / "~eploy-0.9.dist-info").mkdir()
    (site.folder / "~eploy-0.9.dist-info" / "entry_points.txt").write_text(entry("old", "old"))
    assert listed(site) == ["deploy"]
    assert site.asyncapy("deploy").returncode == 0


@pytest.mark.parametrize("name", ["two words", "-x", "ring\a", "a/b"])
def test_a_name_that_cannot_be_typed_is_not_listed(site: Site, name: str) -> None:
    site.install("deploy", DEPLOY, entries=entry(name, "deploy:deploy"))
    assert listed(site) == []
    assert name not in complete(site, name[0])
    doctor = site.asyncapy("plugins", "doctor").stdout
    assert f"command {name!r} of deploy 1.0 is quarantined: its name {name!r} " in doctor


def test_a_command_without_a_name_in_its_metadata_is_listed_by_its_folder(site: Site) -> None:
    info = site.install("deploy", DEPLOY, entries=entry("deploy", "deploy:deploy"))
    (info / "METADATA").unlink()
    assert "Brought by deploy." in site.asyncapy("--help").stdout
    assert site.asyncapy("deploy").returncode == 0


def test_an_exception_whose_attributes_raise_is_named(site: Site) -> None:
    install(site, "deploy", DEPLOY.replace("click.echo", "raise Odd"))
    with (site.folder / "deploy.py").open("a") as file:
        file.write("class Odd(Exception):\n    __notes__ = property(lambda self: 1 / 0)\n")
        file.write("    __traceback__ = property(lambda self: 1 / 0, lambda self, value: None)\n")
    assert "command 'deploy' of deploy 1.0 raised this exception" in refused(site, "deploy")


def test_a_finder_that_raises_hides_no_command(site: Site) -> None:
    install(site, "deploy", DEPLOY)
    program = """
    import sys

    class Finder:
        def find_spec(self, *arguments):
            return None
        def find_distributions(self, context):
            raise RuntimeError

    sys.meta_path.insert(0, Finder())
    sys.argv = ["asyncapy", "deploy"]
    from asyncapy_cli.main import main
    main()
    """
    assert site.prints(program) == "deployed to None, False, []\n"


def test_a_distribution_hides_another_of_its_name_later_on_the_path(site: Site) -> None:
    install(site, "deploy", DEPLOY)
    later = site.folder / "later"
    (later / "Deploy-2.0.dist-info").mkdir(parents=True)
    (later / "Deploy-2.0.dist-info" / "entry_points.txt").write_text(entry("deploy", "deploy:other"))
    done = site.asyncapy("deploy", PYTHONPATH=f"{site.folder}:{later}")
    assert done.returncode == 0, done.stderr
    assert "Claimed" not in site.asyncapy("--help", PYTHONPATH=f"{site.folder}:{later}").stdout
