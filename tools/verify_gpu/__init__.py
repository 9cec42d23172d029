"""`./dev verify-gpu`: everything that a GPU is needed for, in stages of at most eight minutes, and one record of it.

  machine   the device, by the driver alone        stages    what the stages are and run
  build     programs, built here or carried        record    the record: put together, checked
  runner    stages, time limits, resuming          render    the record as a page

Nothing here needs more than Python's standard library; PyTorch is used by the stages that compare with it.
"""
