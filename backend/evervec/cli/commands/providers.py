"""`evervec providers`: who embeds, and who extracts."""

from pathlib import Path
from typing import Annotated

import typer

from evervec.cli.render.batch_option import Batch
from evervec.cli.terminal import output
from evervec.cli.terminal.options import Json
from evervec.cli.terminal.run import call
from evervec.domain.encoders import LONG_TEXTS, POOLINGS, EncoderOptions
from evervec.domain.vendors import (
    API_KEY_TYPES,
    BATCH_TYPES,
    EXTRACTOR_TYPES,
    FOLDER_TYPES,
    HUB_TYPES,
    KEYLESS_TYPES,
    LOCAL,
    MEDIA_TYPES,
    OLLAMA,
    TASK_TYPES,
    TYPES,
    WIDTH_TYPES,
)
from evervec.pipeline.embedding import keys, providers
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.build import fill
from evervec.pipeline.spaces.progress import builds
from evervec.pipeline.status.overview import ProviderStatus, describe
from evervec.store.providers import Provider, ProviderDraft

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The provider's name.")]
Type = Annotated[
    str,
    typer.Option(
        "--type", metavar="TYPE", help=f"One of {', '.join(TYPES)}. {' and '.join(BATCH_TYPES)} have batch jobs."
    ),
]
Url = Annotated[
    str | None,
    typer.Option(metavar="URL", help=f"For example http://127.0.0.1:11434; {' and '.join(HUB_TYPES)}: another hub."),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="The embedding model, for example nomic-embed-text; onnx: minilm or multilingual; "
        f"{' and '.join(HUB_TYPES)}: a name on the Hugging Face hub.",
    ),
]
ChatModel = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help=f"{', '.join(type_ for type_ in EXTRACTOR_TYPES if type_ != LOCAL.type)}: the model that scores and extracts, "
        f"local rules without. Of {' and '.join(MEDIA_TYPES)} it describes pictures and sounds, too.",
    ),
]
Extract = Annotated[
    bool,
    typer.Option(
        "--extract/--no-extract", metavar="", help="Let the chat model score and extract; else local rules do."
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        envvar="EVERVEC_PROVIDER_KEY",
        show_envvar=False,
        help=f"Needed by {' and '.join(API_KEY_TYPES)}. Stored encrypted; better given as EVERVEC_PROVIDER_KEY.",
    ),
]
NoKey = Annotated[
    bool,
    typer.Option("--no-key", metavar="", help=f"{', '.join(KEYLESS_TYPES)}: the server at --base-url asks for no key."),
]
Template = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What is embedded for a chunk: {text}, with {title} and {heading} before it; \\n is a line break.",
    ),
]
ChunkTokens = Annotated[int | None, typer.Option(metavar="N", help="The most tokens that a chunk may have.")]
Price = Annotated[
    float | None, typer.Option(metavar="USD", help="Dollars per million tokens, so that runs say what they cost.")
]
Dimensions = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help=f"How wide vectors shall be, of a model that has several widths ({', '.join(WIDTH_TYPES)}).",
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help=f"{', '.join(FOLDER_TYPES)}: a folder with the model and its tokenizer.json, instead of --model; its files say "
        "the rest.",
    ),
]
File = Annotated[str | None, typer.Option(metavar="NAME", help="The model's file in --folder, if not model.onnx.")]
Pooling = Annotated[
    str | None, typer.Option(metavar="WORD", help=f"How --folder makes one vector of many: {', '.join(POOLINGS)}.")
]
QueryPrefix = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What the model wants before a question, for example 'query: '.")
]
DocumentPrefix = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What the model wants before a text, for example 'passage: '.")
]
TextTokens = Annotated[
    int | None, typer.Option(metavar="N", help="The most tokens that --folder takes at once, special ones included.")
]
TaskTypes = Annotated[
    bool,
    typer.Option("--task-types", metavar="", help=f"{', '.join(TASK_TYPES)}: tell it which texts are questions."),
]
LongTexts = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(LONG_TEXTS),
        help="What becomes of a text that is longer than the model takes: embedded in windows, whose vectors make one, or refused.",
    ),
]
Activate = Annotated[
    bool, typer.Option("--activate/--no-activate", metavar="", help="Use it at once if no vector is lost by that.")
]
Reembed = Annotated[
    bool,
    typer.Option("--reembed", metavar="", help="Embed again what is in another space, which is searched meanwhile."),
]


@app.callback()
def group() -> None:
    """Choose who embeds and extracts."""


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the providers; the active one embeds and searches."""
    found = [describe(provider) for provider in call(providers.listed)]
    if as_json:
        output.document({"providers": found})
        return
    for one in found:
        _show(one)
    if not found:
        output.echo("No provider yet. Add one with `evervec providers add`.")


def _show(one: ProviderStatus) -> None:
    output.echo(f"{one.name}{'  (active)' if one.active else ''}", style="bold")
    output.echo(f"embeds with {one.model}, {one.dimensions} dimensions", indent=2)
    output.echo(f"chunks of {one.chunk_tokens:,} tokens at most: {_one_line(one.template)}", indent=2)
    if one.text_tokens:
        longer = "refused" if one.long_texts == "refuse" else "embedded in windows"
        output.echo(f"the model takes {one.text_tokens:,} tokens of a text; longer ones are {longer}", indent=2)
    output.echo(_price(one.usd_per_million_tokens), indent=2)
    output.echo(f"extracts with {(one.extracts and one.chat_model) or 'local rules'}", indent=2)
    if one.base_url:
        output.echo(f"at {one.base_url}", indent=2)
    if one.reason:
        output.echo(
            f"stopped: {one.reason}" if one.drifted else f"paused for {one.paused_seconds:.0f} s: {one.reason}",
            style="yellow",
            indent=2,
        )


def _one_line(template: str) -> str:
    return template.replace("\n", "\\n")


def _price(dollars: float | None) -> str:
    if dollars is None:
        return "price unknown: give it with --price"
    return f"costs ${dollars:g} per million tokens" if dollars else "costs nothing"


@app.command()
def add(
    name: Name,
    type_: Type = OLLAMA.type,
    base_url: Url = None,
    model: Model = None,
    chat_model: ChatModel = None,
    extract: Extract = True,
    api_key: Key = None,
    no_key: NoKey = False,
    template: Template = None,
    chunk_tokens: ChunkTokens = None,
    dimensions: Dimensions = None,
    price: Price = None,
    folder: Folder = None,
    file: File = None,
    pooling: Pooling = None,
    query_prefix: QueryPrefix = None,
    document_prefix: DocumentPrefix = None,
    text_tokens: TextTokens = None,
    task_types: TaskTypes = False,
    long_texts: LongTexts = None,
    activate: Activate = True,
    as_json: Json = False,
) -> None:
    """Probe a provider and store it. The width of its vectors is measured, never assumed."""
    encoder = EncoderOptions(
        None if folder is None else str(folder.resolve()),
        file,
        pooling,
        query_prefix,
        document_prefix,
        text_tokens,
        task_types or None,
        long_texts,
    )
    draft = ProviderDraft(
        name,
        type_,
        base_url=base_url,
        model=model,
        chat_model=chat_model,
        api_key=None if no_key else api_key,
        no_key=no_key,
        template=None if template is None else template.replace("\\n", "\n"),
        chunk_tokens=chunk_tokens,
        usd_per_million_tokens=price,
        dimensions=dimensions,
        encoder=encoder,
        extracts=extract,
    )

    async def run(resources: Resources) -> tuple[Provider, bool]:
        before = await providers.listed(resources)
        added = await providers.add(resources, draft, activate=activate)
        return added, any(one.space.active and _recipe(one) != _recipe(added) for one in before)

    provider, other_chunks = call(run)
    added = describe(provider)
    output.document(added) if as_json else _show(added)
    if added.active and other_chunks:
        output.info("Existing documents are chunked again by the workers; only what differs is embedded.")
    if not added.active:
        output.info(
            f"Rows are embedded in another space. Build its own beside it with `evervec providers use {added.name} --reembed`, "
            f"or for one dataset with `evervec spaces build --provider {added.name} --dataset NAME`."
        )


def _recipe(provider: Provider) -> tuple[object, ...]:
    """Return what decides how documents are chunked."""
    space = provider.space
    return space.id, space.template, space.chunk_tokens, space.text_tokens


@app.command()
def test(name: Name, as_json: Json = False) -> None:
    """Ask a provider for two vectors, and whether a known text embeds as it did."""
    probe = call(lambda r: providers.test(r, name))
    if as_json:
        output.document(
            {
                "name": name,
                "holds": not probe.drifted,
                "dimensions": probe.dimensions,
                "milliseconds": probe.milliseconds,
                "similarity": probe.similarity,
            }
        )
    else:
        output.echo(f"{name} answers: {probe.dimensions} dimensions in {probe.milliseconds} ms")
        output.echo(f"A known text has a cosine of {probe.similarity} with its vector of the first check.", indent=2)
    if probe.drifted:
        output.info("The model does not embed as it did, so nothing is written with it: bring the former model back.")
        raise typer.Exit(1)


@app.command()
def use(name: Name, reembed: Reembed = False, batch: Batch = False, as_json: Json = False) -> None:
    """Make a provider the active one."""

    async def run(resources: Resources) -> tuple[Provider, bool]:
        chosen = await providers.use(resources, name, reembed=reembed, by_batch=batch)
        if batch:
            with output.waiting("preparing rows for batch jobs"):
                await fill(resources, whole=True)
        return chosen, any(one.state == "next" for one in await builds(resources))

    provider, building = call(run)
    used = describe(provider)
    output.document(used) if as_json else output.echo(f"{used.name} is active.")
    if batch:
        output.info("Send what waits with `evervec batch flush`.")
    if building:
        output.info(
            "Its space is built beside the present one, which is searched until every row has its new vector: "
            "`evervec spaces status` says how far it is."
        )


@app.command()
def remove(name: Name, as_json: Json = False) -> None:
    """Remove a provider. Its vectors stay."""
    call(lambda r: providers.remove(r.database, name))
    output.document({"removed": name}) if as_json else output.echo(f"{name} is removed.")


@app.command("rotate-key")
def rotate_key(as_json: Json = False) -> None:
    """Encrypt keys and passwords anew: EVERVEC_SECRET_KEY holds NEW,OLD, or a new key is made where it is not set."""
    rotated = call(keys.rotate_secret)
    if as_json:
        output.document(rotated)
        return
    output.echo(
        f"{rotated.providers:,} keys of providers and {rotated.sources:,} addresses of sources are encrypted anew."
    )
    output.info(
        "Leave the old key out of EVERVEC_SECRET_KEY now; processes that run with it alone have to be started again."
    )
