"""Beyond one machine: a Buildbot master and its workers, which run the pipeline's commands."""
