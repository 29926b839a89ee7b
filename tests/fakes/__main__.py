"""`python -m tests.fakes [--dims N] [--port N] [--api-key KEY]` serves until Ctrl-C and prints its address first."""

import argparse
import asyncio
import signal
import sys

from tests.fakes.server import FakeProvider

ABOUT = "A fake provider that speaks Ollama, OpenAI and the Gemini Developer API, online and batch, at one address."
HOW = """\
The address is printed first; the path of a request says which protocol answers. With URL for that address:

  evervec providers add fake --type ollama --base-url URL    --model fake-embed
  evervec providers add fake --type openai --base-url URL/v1 --model text-embedding-3-small
  evervec providers add fake --type gemini --base-url URL    --model gemini-embedding-001

Any key will do unless --api-key is given; pass it as EVERVEC_PROVIDER_KEY. From another process:

  POST URL/_fault    {"fault": "lost_answer", "times": 1, "endpoint": "POST /v1/batches"}
  POST URL/_heal
  POST URL/_pace     {"delay": 0.02, "most": 3, "seconds": 60}
  POST URL/_batches  {"polls": 0, "outcome": "fail"}
  GET  URL/_batches  jobs and files          GET URL/_log  every request, and the jobs
"""


async def serve(options: argparse.Namespace) -> None:
    """Run one fake provider until it is interrupted or terminated."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):  # an orderly end, so that its files leave the disk
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with FakeProvider(options.dims, api_key=options.api_key, port=options.port) as fake:
        sys.stdout.write(f"{fake.url}\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> None:
    """Read the command line."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.fakes", description=ABOUT, epilog=HOW, formatter_class=kind)
    parser.add_argument("--dims", type=int, default=64, help="width of the vectors (default 64)")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--api-key", help="refuse requests that do not carry this key")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
