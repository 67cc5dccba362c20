"""What a person sees of a run: metric files, progress bar, summary, curves and tables.

Nothing is imported here, so that `import pnet_jax.report` costs nothing: TensorBoard and matplotlib
are loaded by the functions that need them, at their first use.
"""
