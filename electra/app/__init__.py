"""`electra app`: a web page for models, one tab each, which shows what they say of a text that someone types.

    MODEL -> models.py -> detection.py (replaced tokens) -> tokens.py (HTML)  -> detector_tab.py -.
                       `-> tasks.py (fine-tuned models)  -> answers.py (HTML) ------------------> page.py -> serve.py
    what is typed, or a link -> fields.py (checked)                     widgets.py, style.py -^           `-> space.py

What stands left of the HTML is plain Python and knows nothing of Gradio. What predicts is `electra predict`'s own code.
The page asks nothing of the network, and what it takes is bounded.
"""
