"""Words of a text as far as two wordings of one thing share them."""

import re
from functools import lru_cache

STEM_LENGTH = 5
_WORD = re.compile(r"[^\W_]+")
_STOPWORDS = frozenset(
    _WORD.findall("""
        a an and are as at be been but by can could did do does for from had has have he her his how i if in into is
        it its just let make me my new no not now of off on one or our out please she should so some than that the
        their them then there these they this those to too up us use user was we were what when where which who why
        will with would you your
    """)
)


@lru_cache(maxsize=2048)
def stems(text: str) -> frozenset[str]:
    """The first five letters of each word that carries meaning, in lower case: `finish` and `finishing` are alike.

    Numbers count as words; for scripts without spaces between words a run of letters is one word.
    """
    return frozenset(word[:STEM_LENGTH] for word in _WORD.findall(text.lower()) if word not in _STOPWORDS)
