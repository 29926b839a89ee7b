"""`evervec budget`: how much may be sent to a provider or for a dataset."""

from typing import Annotated

import typer

from evervec.cli.terminal import output
from evervec.cli.terminal.options import Json
from evervec.cli.terminal.run import call
from evervec.domain.limits import CEILINGS, LIMITS, Limits
from evervec.pipeline.budget import setting
from evervec.pipeline.budget.setting import BudgetOwner
from evervec.store.budget.budgets import Budget

app = typer.Typer(no_args_is_help=True)

OfProvider = Annotated[str | None, typer.Option("--provider", metavar="NAME", help="The budget of a provider.")]
OfDataset = Annotated[
    str | None, typer.Option("--dataset", metavar="NAME", help="The budget of a dataset: name, project/name or uuid.")
]
Requests = Annotated[
    int | None, typer.Option("--requests-per-minute", metavar="N", help="Of a provider, by all workers together.")
]
Tokens = Annotated[
    int | None, typer.Option("--tokens-per-minute", metavar="N", help="Of a provider, by all workers together.")
]
DayTokens = Annotated[int | None, typer.Option("--tokens-per-day", metavar="N", help="A ceiling for a day (UTC).")]
MonthTokens = Annotated[
    int | None, typer.Option("--tokens-per-month", metavar="N", help="A ceiling for a calendar month (UTC).")
]
DayDollars = Annotated[float | None, typer.Option("--usd-per-day", metavar="USD", help="A ceiling in dollars.")]
MonthDollars = Annotated[float | None, typer.Option("--usd-per-month", metavar="USD", help="A ceiling in dollars.")]
Without = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="LIMIT", help="Lift this limit, for example tokens-per-day; again for more."),
]


@app.callback()
def group() -> None:
    """Limit what is sent to a provider, or for a dataset."""


@app.command("set")
def set_(
    provider: OfProvider = None,
    dataset: OfDataset = None,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    tokens_per_day: DayTokens = None,
    tokens_per_month: MonthTokens = None,
    usd_per_day: DayDollars = None,
    usd_per_month: MonthDollars = None,
    without: Without = None,
    as_json: Json = False,
) -> None:
    """Set limits. A ceiling that is reached stops the embedding, never a search, until its day or month is over."""
    limits = Limits(
        requests_per_minute, tokens_per_minute, tokens_per_day, tokens_per_month, usd_per_day, usd_per_month
    )
    lifted = tuple(name.replace("-", "_") for name in without or ())
    budget = call(lambda r: setting.set_(r, BudgetOwner(provider, dataset), limits, without=lifted), sends=False)
    output.document(budget) if as_json else _show(budget)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the budgets and what was used of them."""
    found = call(setting.listed, sends=False)
    if as_json:
        output.document({"budgets": found})
        return
    for budget in found:
        _show(budget)
    if not found:
        output.echo("No budget yet: set one with `evervec budget set`.")


@app.command()
def remove(provider: OfProvider = None, dataset: OfDataset = None, as_json: Json = False) -> None:
    """Remove a budget: nothing is limited any more."""
    call(lambda r: setting.remove(r, BudgetOwner(provider, dataset)), sends=False)
    name = provider or dataset
    output.document({"removed": name}) if as_json else output.echo(f"{name} has no budget any more.")


def _show(budget: Budget) -> None:
    output.echo(budget.owner, style="bold")
    for name in LIMITS:
        limit = getattr(budget.limits, name)
        if limit is not None:
            output.echo(_line(budget, name, limit), indent=2)
    if budget.share < 1:
        output.echo(f"the provider refused that much: {budget.share:.0%} of the pace for now", indent=2, style="yellow")
    reason = budget.reason()
    if reason is not None:
        output.echo(reason, indent=2, style="yellow")


def _line(budget: Budget, name: str, limit: float) -> str:
    what, _, period = name.partition("_per_")
    number = f"${limit:,.2f}" if what == "usd" else f"{limit:,} {what}"
    if name not in CEILINGS:
        return f"{number} a {period}"
    used = budget.used(name)
    return f"{number} a {period}, {f'${used:,.4f}' if what == 'usd' else f'{used:,.0f}'} used"
