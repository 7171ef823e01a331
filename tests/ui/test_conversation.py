"""What models read and what the page shows of it."""

from eval.running.chat import Answered, Part, Prompt, Routing, Token
from ui.conversation import MAX_TURNS, answers_html, asked, ended, heard, messages
from ui.routing import table_html


def test_without_follow_up_a_model_reads_the_question_alone():
    turns = asked((), "one?", ("merge",), probe=None, follows=False)
    turns = heard(turns, Answered("merge", "1", 0.1, 1))
    turns = asked(turns, "two?", ("merge",), probe=None, follows=False)
    assert messages(turns, "merge") == [{"role": "user", "content": "two?"}]


def test_a_follow_up_holds_each_models_own_answers():
    turns = asked((), "one?", ("merge", "base"), probe=None, follows=False)
    turns = heard(heard(turns, Answered("merge", "m", 0.1, 1)), Answered("base", "b", 0.1, 1))
    turns = asked(turns, "two?", ("merge", "base"), probe=None, follows=True)
    assert [m["content"] for m in messages(turns, "base")] == ["one?", "b", "two?"]


def test_a_stopped_answer_keeps_what_had_come():
    turns = ended(heard(asked((), "q", ("merge",), probe=None, follows=False), Token("merge", "half an")))
    assert turns[0].answers[0].text == "half an"
    assert not turns[0].running


def test_a_model_that_answers_nothing_is_told_from_one_that_was_not_asked():
    turns = ended(asked((), "one?", ("merge", "base"), probe=None, follows=False))
    turns = ended(asked(turns, "two?", ("merge", "router", "base"), probe=None, follows=False))
    two, one = answers_html(turns, (), {}, "TIES", updating=False).split("one?")
    assert (two.count("no answer"), two.count("not asked")) == (3, 0)
    assert (one.count("no answer"), one.count("not asked")) == (2, 1)


def test_all_text_is_escaped():
    turns = asked((), "<img src=x onerror=alert(1)>", ("merge", "<b>"), probe=None, follows=False)
    turns = heard(heard(turns, Prompt("merge", "<script>")), Answered("merge", "<script>a</script>", 0.1, 3))
    html = answers_html(turns, ("<b>",), {}, "<i>method", updating=False)
    assert "<script" not in html
    assert "<img" not in html
    assert "<i>method" not in html
    assert 'data-model="<b>"' not in html


def test_only_the_last_turns_are_kept():
    turns = ()
    for i in range(MAX_TURNS + 3):
        turns = asked(turns, str(i), ("merge",), probe=None, follows=False)
    assert len(turns) == MAX_TURNS
    assert turns[0].question == "3"


def test_answers_stand_below_each_other_where_columns_would_be_too_narrow():
    beside = asked((), "q", ("merge", "router", "mixture", "duo", "base", "a", "b"), probe=None, follows=False)
    assert '<div class="turns many"' in answers_html(beside, ("a", "b"), {}, "RESM", updating=False)
    few = asked((), "q", ("merge", "base", "a", "b"), probe=None, follows=False)
    assert '<div class="turns"' in answers_html(few, ("a", "b"), {}, "RESM", updating=False)


def test_a_pieces_one_score_has_a_column_and_each_experts_stands_with_its_share():
    one = Routing("duo", "", {"a": 0.0, "b": 1.0}, "", (Part("Hi.", (0.0, 1.0), (0.25,)),), "draft: likelihood")
    assert "<td>b</td><td>0 %</td><td>100 %</td><td>0.25</td>" in table_html(one)
    each = Routing("mixture", "", {"a": 0.4, "b": 0.6}, "", (Part("Hi", (0.4, 0.6), (1.5, 2.0)),), "gate")
    assert "<td>b</td><td>40 % · 1.50</td><td>60 % · 2.00</td>" in table_html(each)
