"""One model, its data, many questions, one record.

`caveat.audit` is the whole of it; `record` alone imports no torch.
"""
