"""`evervec providers`: who embeds, and who extracts."""

from typing import Annotated

import typer

from evervec.cli import output
from evervec.cli.options import Json
from evervec.cli.run import call
from evervec.pipeline import providers
from evervec.pipeline.overview import describe

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The provider's name.")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the providers; the active one embeds and searches."""
    found = [describe(provider) for provider in call(providers.listed)]
    if as_json:
        output.document({"providers": found})
        return
    columns = ("name", "type", "model", "chat_model", "dimensions", "active", "base_url", "reason")
    rows = [[str(one[column]) if one[column] not in (None, False) else "" for column in columns] for one in found]
    output.table(None, columns, rows)


@app.command()
def add(
    name: Name,
    type_: Annotated[str, typer.Option("--type", help="local or ollama.")] = "ollama",
    base_url: Annotated[str | None, typer.Option(help="For example http://127.0.0.1:11434.")] = None,
    model: Annotated[str | None, typer.Option(help="The embedding model, for example nomic-embed-text.")] = None,
    chat_model: Annotated[
        str | None, typer.Option(help="The model that scores and extracts; local rules without.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="EVERVEC_PROVIDER_KEY", help="Kept sealed; better given as EVERVEC_PROVIDER_KEY."),
    ] = None,
    activate: Annotated[bool, typer.Option(help="Use it at once if no embedded row is lost by that.")] = True,
    as_json: Json = False,
) -> None:
    """Probe a provider and keep it. The width of its vectors is asked for, never assumed."""
    added = describe(
        call(
            lambda r: providers.add(
                r,
                name=name,
                type_=type_,
                base_url=base_url,
                model=model,
                chat_model=chat_model,
                api_key=api_key,
                activate=activate,
            )
        )
    )
    if as_json:
        output.document(added)
        return
    output.say(
        f"{added['name']}: {added['model']}, {added['dimensions']} dimensions{', active' if added['active'] else ''}"
    )
    if not added["active"]:
        output.note(
            f"Rows are embedded in another space. Switch with `evervec providers use {added['name']} --reembed`."
        )


@app.command()
def test(name: Name, as_json: Json = False) -> None:
    """Ask a provider for two vectors."""
    probe = call(lambda r: providers.test(r, name))
    if as_json:
        output.document(
            {"name": name, "holds": True, "dimensions": probe.dimensions, "milliseconds": probe.milliseconds}
        )
    else:
        output.say(f"{name} answers: {probe.dimensions} dimensions in {probe.milliseconds} ms")


@app.command()
def use(
    name: Name,
    reembed: Annotated[
        bool, typer.Option("--reembed", help="Drop the vectors of another space and embed again.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a provider the active one."""
    used = describe(call(lambda r: providers.use(r, name, reembed=reembed)))
    output.document(used) if as_json else output.say(f"{used['name']} is active.")


@app.command()
def remove(name: Name, as_json: Json = False) -> None:
    """Forget a provider. Its vectors stay."""
    call(lambda r: providers.remove(r, name))
    output.document({"removed": name}) if as_json else output.say(f"{name} is forgotten.")
