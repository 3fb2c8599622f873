"""`electra app`: a web page for models, one tab each, which shows what they say of a text that someone types.

    MODEL... -> models.py -> a panel each: detection.py (replaced tokens), answers.py (fine-tuned models)
    panel -> page.py (Gradio; fields.py: what is typed, checked, and as a link) -> serve.py (the server)
                                                                                `-> space.py (a Hugging Face Space)

Panels are plain Python, values in and HTML out (tokens.py, answers.py), and know nothing of Gradio. What predicts is
`electra predict`'s own code. The page asks nothing of the network, and what it takes is bounded.
"""
