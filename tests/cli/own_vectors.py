"""A table that has vectors already: of the local model, for what a template makes of its rows' text."""

from evervec.domain.documents.chunking import TEMPLATE, Recipe
from evervec.domain.vendors import LOCAL
from evervec.embedders.catalog import open_embedder

TEXTS = ("The parcel came late.", "Nobody answers the phone.", "The colour is not that of the picture.")


async def reviews(template: str = TEMPLATE) -> str:
    """Return the SQL that makes `public.reviews`, with its vectors in the column `embedding`."""
    embedder = open_embedder(LOCAL.type, name=LOCAL.type)
    recipe = Recipe(template)
    made = await embedder.embed(
        [recipe.vector_text(f"reviews {number}", "", text) for number, text in enumerate(TEXTS, 1)]
    )
    await embedder.aclose()
    rows = ", ".join(
        f"({number}, '{text}', '{{{','.join(map(str, vector))}}}')"
        for number, (text, vector) in enumerate(zip(TEXTS, made.tolist(), strict=True), 1)
    )
    return (
        "CREATE TABLE public.reviews (id int PRIMARY KEY, body text, embedding real[]); "
        f"INSERT INTO public.reviews VALUES {rows}"
    )
