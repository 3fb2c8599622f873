"""The parts of the page that `electra report` writes.

    run folders -> runs.py -> pretraining.py, finetuning.py -> html.py -> one file
                     `-> detection.py (what only the model can tell) -^
                                       plots.py draws for all three

Each part takes what was read of the runs and gives sections of HTML; none of them reads or writes a file of its own,
but for runs.py and detection.py, which read.
"""
