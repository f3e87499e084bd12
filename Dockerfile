# The image of Rollout, in four forms. Each serves as user 65532, may have a read-only root file system, and then takes
# two volumes: /var/lib/rollout and /tmp.
#
#   docker build --tag rollout:0.1.0 .                           serves ONNX, without torch
#   docker build --tag rollout:0.1.0-demo --target demo .        the same with the demo's bundles in /opt/rollout/models
#   docker build --tag rollout:0.1.0-torch --target torch .      with torch, for ROLLOUT_VARIANT=torchscript
#   docker build --tag rollout-train:0.1.0 --target train .      with what training needs and the recipes in models/
#
# On top of the base: 390 MB without torch (120 MB compressed), 1,250 MB with it (350 MB compressed).
#
# Each has the list of what is in it in /opt/rollout/sbom.cdx.json. All that is installed is locked, with hashes.
#
# `demo`, `train` and `torch` install torch's build for CPUs, which for Intel and AMD is not on PyPI but on PyTorch's own index:
# --build-arg PIP_EXTRA_INDEX_URL=...

# 3.11.16; the digest names the index of all platforms.
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS base
# Neither BentoML nor onnxruntime is to report to its makers.
ENV BENTOML_DO_NOT_TRACK=True \
    ORT_DISABLE_TELEMETRY=1

FROM base AS build
WORKDIR /src
COPY requirements requirements
# The base's pip installs into both, so that none is left in what is served.
RUN python3 -m venv --without-pip /opt/tools && python3 -m venv --without-pip /opt/rollout/venv && mkdir /var/lib/rollout
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/tools install --only-binary :all: \
    --no-deps --require-hashes --requirement requirements/build.txt --requirement requirements/sbom.txt
# There is no compiler: a dependency without a wheel for this platform ends the build here.
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/rollout/venv install --only-binary :all: --no-compile \
    --no-deps --require-hashes --requirement requirements/serve.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY service service
RUN /opt/tools/bin/hatchling build --target wheel --directory /opt/wheel \
    && python3 -m pip --python /opt/rollout/venv install --only-binary :all: --no-compile --no-deps /opt/wheel/*.whl
# Nothing is compiled at the first import in a read-only tree. Unchecked, since layers may come with other times.
RUN python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /opt/rollout/venv
# What is in it, as CycloneDX lists it.
RUN /opt/tools/bin/cyclonedx-py environment --output-file /opt/rollout/sbom.cdx.json /opt/rollout/venv

FROM build AS build-torch
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/rollout/venv install --only-binary :all: --no-compile \
    --no-deps --require-hashes --requirement requirements/torch.txt
# torch's own tests come along and are in a newer Python.
RUN python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash -x torch/testing /opt/rollout/venv
RUN /opt/tools/bin/cyclonedx-py environment --output-file /opt/rollout/sbom.cdx.json /opt/rollout/venv

FROM build-torch AS build-demo
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/rollout/venv install --only-binary :all: \
    --no-deps --require-hashes --requirement requirements/demo.txt
COPY models models
RUN /opt/rollout/venv/bin/rollout build models/digits
RUN /opt/rollout/venv/bin/rollout push digits:v1 /opt/rollout/models \
    && /opt/rollout/venv/bin/rollout push digits:v2 /opt/rollout/models

FROM base AS runtime
# A tree that is never installed into needs no installer.
RUN python3 -m pip uninstall --yes --quiet pip setuptools wheel
# An empty folder that is the user's, for a run without a volume there.
COPY --from=build --chown=65532:65532 /var/lib/rollout /var/lib/rollout
WORKDIR /opt/rollout
USER 65532:65532
ENV PATH=/opt/rollout/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BENTOML_HOME=/var/lib/rollout/bentoml \
    ROLLOUT_HOME=/var/lib/rollout \
    ROLLOUT_HOST=0.0.0.0
LABEL org.opencontainers.image.title=rollout \
      org.opencontainers.image.description="Serves PyTorch models in batches, with A/B trials and review" \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.licenses=Apache-2.0
EXPOSE 3000
# In exec form, so that SIGTERM reaches it.
ENTRYPOINT ["rollout"]
CMD ["serve"]

FROM runtime AS torch
COPY --from=build-torch /opt/rollout/venv /opt/rollout/venv
COPY --from=build-torch /opt/rollout/sbom.cdx.json /opt/rollout/sbom.cdx.json

FROM runtime AS train
COPY --from=build-demo /opt/rollout/venv /opt/rollout/venv
COPY models models
# As the others have it; the list of what training needs besides is requirements/demo.txt.
COPY --from=build-torch /opt/rollout/sbom.cdx.json /opt/rollout/sbom.cdx.json

FROM runtime AS demo
COPY --from=build /opt/rollout/venv /opt/rollout/venv
COPY --from=build /opt/rollout/sbom.cdx.json /opt/rollout/sbom.cdx.json
COPY --from=build-demo /opt/rollout/models /opt/rollout/models

FROM runtime AS serve
COPY --from=build /opt/rollout/venv /opt/rollout/venv
COPY --from=build /opt/rollout/sbom.cdx.json /opt/rollout/sbom.cdx.json
