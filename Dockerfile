# The service as a container: https://docs.docker.com/reference/dockerfile/
#   docker build -t azure-openai-proxy .
# How to run it: docs/deployment.md.

FROM python:3.11-slim-bookworm AS build
WORKDIR /source
# The exact versions that the tests ran with, for what the build itself needs too.
ENV PIP_CONSTRAINT=/source/constraints.txt PIP_BUILD_CONSTRAINT=/source/constraints.txt \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY actors actors
COPY proxy proxy
# An environment without pip; what pip compiles here need not, and can't, be compiled at a start.
RUN python -m venv --without-pip /opt/proxy && pip --python /opt/proxy/bin/python install .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/proxy /opt/proxy
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin proxy \
    && install --directory --owner=proxy --group=proxy --mode=0700 /var/lib/proxy
ENV PATH=/opt/proxy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=3010 \
    INSTANCE_CONFIG_FILE=/var/lib/proxy/instance_configs.json \
    INSTANCE_STATE_FILE=/var/lib/proxy/instance_states.json \
    INSTANCE_DATA_FILE=/var/lib/proxy/instance_data.json
WORKDIR /var/lib/proxy
USER 10001:10001
# The only place that is written to, unless LOG_DIR names another.
VOLUME /var/lib/proxy
EXPOSE 3010
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["azure-openai-proxy", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["azure-openai-proxy"]
