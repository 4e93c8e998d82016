# One image for Lambda and ECS. On Lambda the Web Adapter, an extension, stands between the Runtime API and the
# service; anywhere else its binary does nothing. A release fills in the digests.
#checkov:skip=CKV_DOCKER_7:the tags are in the two arguments, and exact
#checkov:skip=CKV_DOCKER_2:Lambda and ECS look at none; infra/ecs and docker-compose.yml say what health is
ARG PYTHON_IMAGE=python:3.13.9-slim-bookworm
ARG ADAPTER_IMAGE=public.ecr.aws/awsguru/aws-lambda-adapter:1.0.0-rc1

FROM ${ADAPTER_IMAGE} AS adapter

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
COPY requirements/base.txt requirements/base.txt
RUN python -m venv /opt/quartsse \
 && /opt/quartsse/bin/python -m pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/base.txt \
 && python -m pip install --no-cache-dir hatchling==1.33.0
COPY pyproject.toml README.md LICENSE ./
COPY quartsse quartsse
# Installed as a package, not copied file by file: what the wheel lacks is missed here and not in production.
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/quartsse/bin/python -m pip install --no-cache-dir --no-deps --no-index dist/*.whl \
 && /opt/quartsse/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/quartsse/lib

FROM ${PYTHON_IMAGE}
COPY --from=adapter /lambda-adapter /opt/extensions/lambda-adapter
COPY --from=build /opt/quartsse /opt/quartsse
ENV PATH=/opt/quartsse/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYDANTIC_DISABLE_PLUGINS=__all__ \
    HOST=0.0.0.0 \
    PORT=8080 \
    AWS_LWA_INVOKE_MODE=response_stream \
    AWS_LWA_READINESS_CHECK_PATH=/health \
    AWS_LWA_READINESS_CHECK_HEALTHY_STATUS=200-299
RUN python -c "import quartsse.service, quartsse.tools, boto3, aws_xray_sdk.core" \
 && quartsse --version \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin quartsse
USER quartsse
EXPOSE 8080
CMD ["python", "-m", "quartsse", "serve"]
