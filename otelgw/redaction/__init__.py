"""Takes patterns and media out of the text of a span, for one destination, before anything leaves for it.

::

    presets     what an e-mail address, a phone number, a card, a key, an IBAN looks like: text -> where they stand
    text        one string, also with JSON's escapes in it, in any depth of quoting -> the string without them
    values      a value of an attribute: text, JSON text, lists and mappings
    media       images and audio in base64 -> media type, size and hash
    cutting     what is too long -> shorter, valid JSON, marked
    spans       a span -> its copy; what fails is left out, the span never
    offloading  what is too long -> the blob store, by what it is found

Pure functions but for the last. A destination without a ``redact`` section comes here only where there is a blob store.
"""
