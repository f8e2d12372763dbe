# One image for `holdfast api`, `holdfast worker` and `holdfast migrate`.

FROM python:3.11.16-slim-trixie AS build
COPY --from=ghcr.io/astral-sh/uv:0.13.8 /uv /usr/local/bin/
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /app
# The dependencies alone, so that a change to the code does not install them again.
COPY pyproject.toml uv.lock README.md ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --locked --no-dev --no-install-project
COPY holdfast holdfast
COPY workflows workflows
COPY activities activities
COPY worker worker
COPY api api
COPY examples examples
RUN --mount=type=cache,target=/root/.cache/uv uv sync --locked --no-dev \
    && python -m compileall -q holdfast workflows activities worker api examples

FROM python:3.11.16-slim-trixie
# The folder exists so that a volume mounted there belongs to the user.
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin holdfast \
    && install --directory --owner=holdfast --group=holdfast /var/lib/holdfast
# In the same place as above: the project is installed as editable, and `python -m worker` finds its neighbours here.
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
ENTRYPOINT ["holdfast"]
CMD ["--help"]
