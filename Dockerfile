# Evervec for servers: the packages of requirements.lock, checked by their hashes, and the project in /app.
FROM python:3.11.13-slim-bookworm AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /app/.venv
WORKDIR /app
COPY requirements.lock ./
RUN .venv/bin/pip install --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md ./
COPY alembic ./alembic
COPY backend ./backend
RUN .venv/bin/pip install --no-deps --no-build-isolation --editable .

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
