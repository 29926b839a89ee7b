"""Addresses are read as libpq reads them, completed as libpq completes them, or refused by name."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evervec.errors import DatabaseAddressError
from evervec.store.address.address import resolve, seconds
from evervec.store.address.connecting import attempts
from evervec.store.address.parameters import PARAMETERS
from evervec.store.address.parsing import parse, where
from tests.store import libpq

SECRET = "hunter2"

SAME_AS_LIBPQ = [
    "postgresql://",
    "postgres://",
    "postgresql://localhost",
    "postgresql://localhost:5433",
    "postgresql://localhost/mydb",
    "postgresql://user@localhost",
    "postgresql://user:secret@localhost",
    "postgresql://other@localhost/otherdb?connect_timeout=10&application_name=myapp",
    "postgresql://host1:123,host2:456/somedb?target_session_attrs=any&application_name=myapp",
    "postgresql://user@localhost:5433/mydb?options=-c%20synchronous_commit%3Doff",
    "postgresql:///mydb?host=localhost&port=5433",
    "postgresql://[2001:db8::1234]/database",
    "postgresql://[::1]:5433,[::2],h/db",
    "postgresql:///dbname?host=/var/lib/postgresql",
    "postgresql://%2Fvar%2Flib%2Fpostgresql/dbname",
    "postgresql://h1,h2:5433/db",
    "postgresql://h1,h2/db?port=1,2",
    "postgresql://u:p%40%2F%3F@h/d%20b",
    "postgresql://u:p?x@h/db",
    "postgresql://u:@h/db",
    "postgresql://:p@h/",
    "postgresql://h/db?host=other",
    "postgresql://h/db?a+b=c",
    "postgresql://h/db?application_name=a+b",
    "postgresql://h/db?sslmode=",
    "postgresql://h/db?user=a@b&password=x@y",
    "postgresql://h/db?ssl=true",
    "postgresql://h/db?sslmod=require",
    "postgresql://h/db?user",
    "postgresql://h/db?user=%zz",
    "postgresql://h/db?user=%00",
    "postgresql://[::1/db",
    "postgresql://[::1]x/db",
    "host=localhost port=5433 dbname=mydb",
    "  host = localhost   port= 5433 ",
    "host='a b' password='it\\'s' user=x\\ y",
    "host='' dbname=x",
    "host=a,b port=1,2 hostaddr=10.0.0.1,10.0.0.2",
    "host=localhost nonsense",
    "host='unfinished",
    "host=a'b dbname='c'",
    "nonsense=x",
]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no file and no variable of the machine complete an address."""
    monkeypatch.setenv("HOME", str(tmp_path))


def refused(text: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(DatabaseAddressError) as found:
        resolve(text, environment or {})
    return str(found.value)


def test_every_parameter_of_libpq_is_known_with_its_variable() -> None:
    ours = {name: parameter.variable for name, parameter in PARAMETERS.items()}
    # PGCLIENTENCODING is about a terminal; a library of before version 18.1 does not list servicefile
    assert {"servicefile": "PGSERVICEFILE"} | libpq.known() | {"client_encoding": None} == ours


@pytest.mark.parametrize("text", SAME_AS_LIBPQ)
def test_an_address_is_read_as_libpq_reads_it(text: str) -> None:
    wanted = libpq.parsed(text)
    if wanted is None:
        refused(text)
    else:
        assert {name: value for name, value in parse(text).items() if value or name == "host"} == {
            name: value for name, value in wanted.items() if value or name == "host"
        }


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


@given(user=WORDS, password=WORDS, dbname=WORDS)
def test_a_string_of_keywords_may_hold_anything_in_quotes(user: str, password: str, dbname: str) -> None:
    given = {"user": user, "password": password, "dbname": dbname}
    text = " ".join(
        "{}='{}'".format(name, value.replace("\\", "\\\\").replace("'", "\\'")) for name, value in given.items()
    )
    assert parse(text) == given == libpq.parsed(text)


@given(st.text("ab:/?@%&=,[]1'\\ +", max_size=24))
def test_no_text_is_read_otherwise_than_by_libpq_or_breaks_the_reader(rest: str) -> None:
    for text in (f"postgresql://{rest}", rest):
        assert isinstance(where(text), str)
        try:
            found = parse(text)
        except DatabaseAddressError:
            continue
        wanted = libpq.parsed(text)
        # more is read than libpq does: a raw = in a value
        if wanted is not None:
            assert {k: v for k, v in found.items() if v} == {k: v for k, v in wanted.items() if v}


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "postgresql+psycopg", "postgresql+psycopg2", "postgres"])
def test_an_address_of_sqlalchemy_is_the_same_address(scheme: str) -> None:
    assert parse(f"{scheme}://u:p@h:1/db?sslmode=require") == parse("postgresql://u:p@h:1/db?sslmode=require")
    assert parse(f"{scheme}://h/db?ssl=verify-full")["sslmode"] == "verify-full"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("postgresql://h/db?sslmod=require", "'sslmod' is none of libpq's parameters; perhaps 'sslmode'"),
        ("host=h pasword=x", "'pasword' is none of libpq's parameters; perhaps 'password'"),
        ("postgresql://h/db?search_path=x", "options=-c%20search_path%3D"),
        ("postgresql://h/db?statement_timeout=5", "options=-c%20statement_timeout%3D"),
        ("postgresql://h/db?database=x", "write dbname"),
        ("postgresql://h/db?pgbouncer=true", "notices a pooler by itself"),
        ("postgresql://h/db?sslmode=on", "sslmode is one of disable, allow"),
        ("postgresql://h/db?target_session_attrs=master", "target_session_attrs is one of any"),
        ("postgresql://h/db?connect_timeout=soon", "connect_timeout is a whole number"),
        ("postgresql://h/db?client_encoding=latin1", "client_encoding can be UTF8 alone"),
        ("postgresql://h/db?replication=database", "replication opens a connection that takes no queries"),
        ("postgresql://h/db?sslcrldir=/x", "sslcrl"),
        ("postgresql://h/db?require_auth=scram-sha-256", "verify-full"),
        ("postgresql://h/db?requirepeer=postgres", "requirepeer"),
        ("postgresql://h/db?gssencmode=require", "sslmode=require"),
        ("postgresql://h/db?oauth_issuer=x", "oauth_issuer belongs to OAuth"),
        ("postgresql://h/db?channel_binding=require", "channel_binding=require needs TLS: add sslmode=verify-full"),
        ("postgresql://h/db?channel_binding=require&sslmode=prefer", "channel_binding=require needs TLS"),
        ("postgresql://h/db?sslrootcert=system&sslmode=require", "too weak"),
        ("postgresql://h/db?sslnegotiation=direct", "sslnegotiation=direct needs sslmode=require"),
        ("postgresql://h/db?min_protocol_version=3.2", "min_protocol_version can be 3.0"),
        ("postgresql://h1,h2/db?port=1,2,3", "3 ports for 2 hosts"),
        ("postgresql://h:x/db", "its port is not a number"),
        ("postgresql://h/db?port=70000", "its port is not a number"),
        ("postgresql:///db?host=h1:5432,h2:5433", "host=a,b and port=5432,5433"),
        ("host=a,b hostaddr=10.0.0.1", "2 hosts, and 1 by hostaddr"),
        ("postgresql://[::1/db", "IPv6 as [::1]"),
        ("mysql://h/db", "postgresql://"),
        ("nonsense", "neither a postgresql:// URL nor a string like host="),
        (" ", "it is empty"),
    ],
)
def test_what_can_not_be_honoured_is_refused_by_name(text: str, words: str) -> None:
    assert words in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://user:{SECRET}/{SECRET}@h:1/db",
        f"postgresql://user:{SECRET}?{SECRET}=1@h:1/db?x=1",
        f"postgresql://user:1/{SECRET}?{SECRET}=1@h:1/db",
        f"postgresql://user:{SECRET}@{SECRET}@h:1/db",
        f"postgresql://user:{SECRET}%@h/db",
        f"postgresql://user:{SECRET}@h:port/db",
        f"mysql://user:{SECRET}@h/db",
        f"host=h password='{SECRET}",
        f"host=h password=it {SECRET}=x",
        f"host=h password={SECRET} sslmod=require",
        f"host=h password={SECRET} port=x",
        f"{SECRET}",
    ],
)
def test_an_error_about_an_address_holds_no_part_of_a_password(text: str) -> None:
    assert SECRET not in refused(text)
    assert SECRET not in where(text)


def test_an_address_is_shown_without_its_password() -> None:
    address = resolve(f"postgresql://u:{SECRET}@h/db?sslpassword={SECRET}", {})
    assert SECRET not in repr(address)
    assert where(f"host=h port=1 dbname=d password={SECRET} user=u") == "postgresql:///d?host=h&port=1"


def test_the_environment_completes_an_address_as_it_does_for_libpq() -> None:
    variables = {
        "PGHOST": "a,b",
        "PGPORT": "1,2",
        "PGUSER": "u",
        "PGPASSWORD": "p",
        "PGDATABASE": "d",
        "PGSSLMODE": "disable",
        "PGCONNECT_TIMEOUT": "3",
        "PGTARGETSESSIONATTRS": "read-write",
        "PGOPTIONS": "-c work_mem=8MB",
        "PGAPPNAME": "mine",
    }
    address = resolve("postgresql://", variables)
    assert [(host.address, host.port, host.password) for host in address.hosts] == [("a", 1, "p"), ("b", 2, "p")]
    assert (address.user, address.database, address.connect_timeout) == ("u", "d", 3)
    assert address.server_settings == {"application_name": "mine", "options": "-c work_mem=8MB"}
    assert address.found["target_session_attrs"] == "read-write"
    own = resolve("postgresql://me:mine@c:7/e?sslmode=require&options=", variables)
    assert [(host.address, host.port, host.password) for host in own.hosts] == [("c", 7, "mine")]
    assert own.found["sslmode"] == "require"
    assert "options" not in own.server_settings


def test_a_variable_that_can_not_be_honoured_is_refused_by_name() -> None:
    assert "environment, require_auth" in refused("postgresql://h/db", {"PGREQUIREAUTH": "scram-sha-256"})
    assert "sslmode is one of" in refused("postgresql://h/db", {"PGSSLMODE": "maybe"})


def test_no_variable_leads_an_address_that_names_its_host_to_another_one() -> None:
    assert resolve("host=/run/own", {"PGHOSTADDR": "10.0.0.1"}).hosts[0].address == "/run/own"
    assert resolve("hostaddr=10.0.0.2", {"PGHOST": "h"}).hosts[0].address == "10.0.0.2"


def test_a_service_completes_an_address(tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text(
        "# mine\n[other]\nhost=no\n[shop]\nhost=h1,h2\nport=5433\nuser = u\npassword=p=q\nsslmode=require\n"
    )
    variables = {"PGSERVICEFILE": str(file), "PGUSER": "not this"}
    for text in ("postgresql://?service=shop", "service=shop", f"service=shop servicefile={file}"):
        address = resolve(text, variables)
        assert [(host.address, host.port, host.password) for host in address.hosts] == [
            ("h1", 5433, "p=q"),
            ("h2", 5433, "p=q"),
        ]
        assert (address.user, address.found["sslmode"]) == ("u", "require")
    assert resolve("service=shop user=me", variables).user == "me"
    assert resolve("dbname=d", variables | {"PGSERVICE": "shop"}).hosts[0].address == "h1"


def test_a_service_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text("[shop]\nhost=h\nsslmod=require\n[broken]\nhost\n")
    assert "'sslmod' is none of" in refused(f"service=shop servicefile={file}")
    assert "line 5" in refused(f"service=broken servicefile={file}")
    assert "'nowhere' is in none of" in refused(f"service=nowhere servicefile={file}")
    assert "does not exist" in refused("service=shop servicefile=/nowhere/at/all")
    (tmp_path / ".pg_service.conf").write_text("[home]\nhost=h9\n")
    assert resolve("service=home", {}).hosts[0].address == "h9"


def test_each_host_has_its_own_password_of_the_password_file(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("# h1:*:*:*:no\nh1:5432:db:u:one\nh2:*:*:*:t\\:w\\\\o\nlocalhost:*:*:*:local\n/s:*:*:*:folder\n")
    file.chmod(0o600)

    def passwords(text: str) -> list[str | None]:
        return [host.password for host in resolve(f"{text} user=u dbname=db passfile={file}", {}).hosts]

    assert passwords("host=h1,h2,h3") == ["one", "t:w\\o", None]
    assert passwords("host=h1 port=1") == [None]
    assert passwords("host=/s,/run/postgresql") == ["folder", "local"]
    assert passwords("port=5432") == ["local"]
    assert passwords("host=h1 password=given") == ["given"]
    assert passwords("host=h1 hostaddr=10.0.0.1") == ["one"]
    file.chmod(0o644)
    assert passwords("host=h1") == [None]


def test_a_user_without_a_home_or_a_name_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", no_name)
    assert "names no user" in refused("postgresql://h/db")
    assert resolve("postgresql://u@h/db", {}).user == "u"


def test_each_host_is_given_the_time_that_the_address_says() -> None:
    assert seconds("postgresql://a,b/db?connect_timeout=7", 10) == 14
    assert seconds("postgresql://a,b/db", 10) == 10
    assert seconds("postgresql://a,b/db?connect_timeout=0", 10) == 10
    assert seconds("postgresql://a/db?connect_timeout=1", 10) == 2  # as libpq


def test_a_standby_is_preferred_and_otherwise_any_host_is_taken() -> None:
    def asked(text: str) -> list[Any]:
        return [(host.address, attribute) for host, attribute in attempts(resolve(text, {}))]

    assert asked("host=a,b target_session_attrs=prefer-standby") == [
        ("a", "standby"),
        ("b", "standby"),
        ("a", "any"),
        ("b", "any"),
    ]
    assert asked("host=a,b target_session_attrs=read-write") == [("a", "read-write"), ("b", "read-write")]
    hosts = ",".join(f"h{n}" for n in range(30))
    mixed = [name for name, _ in asked(f"host={hosts} load_balance_hosts=random")]
    assert sorted(mixed) == sorted(hosts.split(","))
    assert mixed != hosts.split(",")


def test_the_name_of_the_program_is_ours_unless_the_address_has_one() -> None:
    def named(text: str) -> str:
        return resolve(text, {}).server_settings["application_name"]

    assert named("host=h") == "evervec"
    assert named("host=h fallback_application_name=f") == "f"
    assert named("host=h fallback_application_name=f application_name=a") == "a"
