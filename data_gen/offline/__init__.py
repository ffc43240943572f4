"""The offline teacher: a local server with an endpoint's protocol that answers from grammars and word lists. No language model.

    teacher.py   the server; http.py its protocol, request.py what it is asked, batches.py the Batch API, faults.py faults on demand
    items.py     a reply: items by grammar.py, more.py, reading.py or sindhi.py, some of them faulty
    judge.py     answers to check requests, from what was sent
    the rest     what the grammars are made of
"""
