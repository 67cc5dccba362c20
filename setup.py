"""What setup.cfg cannot say: the optional module in C. All the rest is there."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        # Quicker crops where libjpeg-turbo's headers are found (libjpeg-dev, libjpeg-turbo-devel);
        # without them the installation goes on, and OpenCV decodes to the same bits.
        Extension(
            "pnet_jax.data._jpeg",
            sources=["pnet_jax/data/_jpeg.c"],
            libraries=["jpeg"],
            optional=True,
        )
    ]
)
