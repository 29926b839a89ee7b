# Evervec for servers: the packages of requirements.lock, checked by their hashes, and the wheel of this checkout in /app.
FROM python:3.11.13-slim-bookworm AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /app/.venv && python -m venv /tools
WORKDIR /build
COPY requirements.lock requirements-dev.lock ./
RUN /app/.venv/bin/pip install --no-deps --require-hashes --requirement requirements.lock
# what builds the wheel; nothing of it comes into the image
RUN /tools/bin/pip install --no-deps --require-hashes --requirement requirements-dev.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY alembic ./alembic
COPY backend ./backend
RUN /tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /app/.venv/bin/pip install --no-deps dist/*.whl
COPY scripts/backfill_embeddings.py /app/scripts/

FROM python:3.11.13-slim-bookworm

RUN useradd --uid 10001 --create-home evervec \
    && install --directory --mode=0700 --owner=evervec --group=evervec /var/lib/evervec
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 EVERVEC_HOME=/var/lib/evervec
USER evervec
WORKDIR /app
VOLUME /var/lib/evervec
ENTRYPOINT ["evervec"]
CMD ["up"]
