"""Does an answer say that it does not or cannot know, or cannot find what it is asked about?"""

from eval.judging.texts import any_of, plain

_KNOW = (
    r"(?:know|say|tell|determine|predict|confirm|verify|find|answer|be (?:sure|certain)|identify|locate|see|access|"
    r"guess|forecast|recall|look up|give you (?:a|an|any|the|that)|"
    r"provide (?:a|an|any|the|you|that|specific|details|accurate|information))"
)
_ABSTAINS = any_of(
    r"\b(?:i|we|one)(?: really| honestly| simply| just| still)? (?:do not|don't|did not|didn't|cannot|"
    r"can't|could not|couldn't)(?: really| actually| reliably| currently| possibly| honestly| truly|"
    r" yet)* " + _KNOW + r"\b",
    r"\b(?:i|we)(?:'m| am| was| were|'re| are) (?:not able|unable) to " + _KNOW,
    r"\b(?:i|we) (?:do not|don't)(?: currently| really| actually| seem to)? have (?:any |enough |access|"
    r"reliable |that |specific |the |a way |your |real-time |information|details|knowledge|data|record)",
    r"\b(?:i have|i've|have) (?:no (?:information|way|record|knowledge|idea|data|access|details|memory|"
    r"reliable|means)|never heard|not (?:heard|come across|found|seen))\b",
    r"\b(?:not|n't)(?: entirely| quite| really| completely| totally| at all)? (?:sure|certain|aware of|"
    r"familiar with)\b",
    r"\b(?:unsure|uncertain|unfamiliar with|unaware of)\b",
    r"\b(?:no|any) (?:way (?:to|of) (?:know|tell|say|predict|find)|(?:reliable |credible |known |public |"
    r"verifiable |official |available )?(?:record|information|evidence|mention|trace|source|data|entry|"
    r"reference)s? (?:of|on|about|for|that|i|to|exists?|available|is|are)|one (?:knows|can (?:know|say|"
    r"predict|tell))|such (?:person|book|place|paper|study|town|city|novel|film|event|theorem|country|"
    r"author|island|river|law|battle|award|song|album|company|mountain|treaty|language|king|scientist|poet|"
    r"painter))\b",
    r"\bno (?:[\w-]+ ){1,4}(?:by|of|with|under) (?:that|this) name\b",
    r"\b(?:nobody|no one|no-one)(?: can| could| yet| really| currently)? (?:know|knows|say|tell|predict)\b",
    r"\b(?:impossible|too early|not possible|no way|hard|difficult) (?:for me |for anyone )?to (?:know|say|"
    r"tell|predict|determine|answer)\b",
    r"\b(?:cannot|can't|can not) be (?:known|predicted|determined|answered|verified|found)\b",
    r"\b(?:isn't|is not|not|hasn't been|has not been|aren't|are not)(?: yet| publicly| generally|"
    r" currently)* (?:known|available|public|documented|announced|published|recorded|knowable|decided)\b",
    r"\b(?:is|remains|are) (?:unknown|unclear|undetermined|not something (?:i|anyone))\b",
    r"\b(?:does not|doesn't|do not|don't|did not|didn't|may not|might not)(?: actually| seem to| appear to|"
    r" really)* exist\b",
    r"\b(?:appears?|seems?|may|might|could|is|likely|probably)(?: to)?(?: be)? (?:fictional|fictitious|"
    r"invented|made[- ]up|non-?existent|imaginary)\b",
    r"\b(?:not|n't) (?:find|locate|match|recogni[sz]e|verify|confirm)\b",
    r"\b(?:you|your message)(?: have not|haven't| did not| didn't|'ve not) (?:told|given|said|shared|"
    r"mention|mentioned|provide|provided|include|included|specify|specified|attach|attached|paste|pasted)\b",
    r"\b(?:not|isn't|without|need|needs|lack|lacking|missing)(?: \w+)? (?:enough|more|any|some|further|"
    r"additional|sufficient)(?: \w+)? (?:information|context|details?|data|to (?:go|answer|tell|say|"
    r"know|determine|calculate|work))\b",
    r"\b(?:could|can|would|will) you (?:please |kindly )?(?:tell|share|give|provide|clarify|paste|send|"
    r"specify|let|describe|attach|say|point)\b",
    r"\b(?:please|if you) (?:can |could )?(?:share|provide|paste|tell me|send|give me|specify|describe|attach)\b",
    r"\b(?:has not|hasn't|have not|haven't)(?: yet)? (?:happened|taken place|occurred|been (?:held|played|"
    r"decided|announced|determined|written|awarded|released|chosen|drawn))\b",
    r"\b(?:do not|don't) want to guess\b",
    r"\b(?:would|'d) (?:only |just )?be (?:guessing|a guess|speculat\w+|making (?:it|that|one|this|"
    r"something) up)\b",
    r"\b(?:nothing|not anything) (?:i know|i can find|comes? up|is known)\b",
    r"\bit depends on (?:which|what|where|who)\b",
)
# Modest words ahead of an answer all the same, or about something else.
_ANSWERS = any_of(
    r"\b(?:do not|don't) know (?:if|whether) you\b[^.!?]*",
    r"\b(?:i'm|i am) not (?:entirely |quite |completely |totally |100 ?% )?(?:sure|"
    r"certain),? but (?:i (?:think|believe|guess)|it(?:'s| is| was)|probably|maybe|perhaps)\b",
    r"\b(?:i )?(?:don't|do not) know for (?:sure|certain),? but (?:i (?:think|believe|guess)|it(?:'s| is|"
    r" was)|probably|maybe)\b",
    r"\bnot (?:sure|certain) (?:if|whether) (?:you|this helps|that helps)\b[^.!?]*",
    r"\b(?:not only|no doubt)\b",
)


def abstains(answer: str) -> bool:
    return _ABSTAINS.search(_ANSWERS.sub(" ", plain(answer))) is not None
