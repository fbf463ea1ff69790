# sg3 for an NVIDIA GPU. What CUDA needs comes inside PyTorch's wheel, so the image needs no CUDA base and no toolkit;
# the host needs the driver and the NVIDIA Container Toolkit.
#
#     docker build -t sg3 .
#     docker run --rm --gpus all sg3 doctor
#     docker run --rm --gpus all --ipc=host -v "$PWD:/data" sg3 train --outdir=runs --data=photos-256.zip ...
FROM python:3.12-slim

# Where downloads, tuning results and compiled kernels go, writable for any --user. Mount it to keep them.
ENV SG3_CACHE=/cache/sg3 TRITON_CACHE_DIR=/cache/triton
RUN mkdir -p /cache && chmod 1777 /cache

WORKDIR /opt/sg3
COPY pyproject.toml README.md LICENSE ./
COPY sg3 sg3
# cc is a C compiler from PyPI: Triton compiles a small launcher with it, once.
RUN pip install --no-cache-dir '.[cc,fast,plot,video,viewer,hub]'

WORKDIR /data
ENTRYPOINT ["sg3"]
CMD ["doctor"]
