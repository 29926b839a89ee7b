"""`python -m tests.fakes [--dims N] [--port N] [--api-key KEY]` serves until Ctrl-C and prints its address first."""

import argparse
import asyncio
import contextlib
import sys

from tests.fakes.server import FakeProvider


async def serve(options: argparse.Namespace) -> None:
    """Run one fake provider for ever."""
    async with FakeProvider(options.dims, api_key=options.api_key, port=options.port) as fake:
        sys.stdout.write(f"{fake.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes", description="A fake provider that speaks Ollama.")
    parser.add_argument("--dims", type=int, default=64, help="width of the vectors (default 64)")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--api-key", help="refuse requests that do not carry this key")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
