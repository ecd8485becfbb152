# SPDX-License-Identifier: Apache-2.0
import gc
import weakref

import pytest
from reference import Problem

import mla_prefill
from mla_prefill import (
    MLAPrefillBackend,
    MLAPrefillBackendEnum,
    PrefillMetadata,
    _core,
    backends,
    register_mla_prefill_backend,
    registered,
    remove_mla_prefill_backend,
)
from mla_prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend
from mla_prefill.flash_attn import FlashAttnPrefillBackend


class Plain(MLAPrefillBackend):
    @staticmethod
    def get_name():
        return "PLAIN"

    def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, out=None, output_scale=None):
        raise NotImplementedError

    def run_prefill_context_chunk(self, chunk, q, k, v, out=None):
        raise NotImplementedError


class Second(Plain):
    pass


PATH = f"{__name__}.Plain"


def test_members_are_the_library_s():
    rows = _core.backends(None)
    assert [member.name for member in MLAPrefillBackendEnum] == [row["name"] for row in rows]
    prefix = "vllm.v1.attention.backends.mla.prefill."
    for member, row in zip(MLAPrefillBackendEnum, rows, strict=True):
        path = row["class_path"]
        assert member.value == (path and path.replace(prefix, "mla_prefill."))
        if path:
            assert member.get_path() == member.value
            assert member.get_class().get_name() == row["backend_name"]
            assert member.get_class().member_name == member.name


def test_lookups():
    assert MLAPrefillBackendEnum["CPU"] is MLAPrefillBackendEnum.CPU
    assert MLAPrefillBackendEnum(MLAPrefillBackendEnum.CPU.value) is MLAPrefillBackendEnum.CPU
    assert "CPU" in MLAPrefillBackendEnum.__members__
    assert MLAPrefillBackendEnum.CPU in MLAPrefillBackendEnum
    with pytest.raises(
        ValueError, match=r"Unknown MLA prefill backend: 'NO'\. Valid options are: FLASH_ATTN, .*"
    ):
        MLAPrefillBackendEnum["NO"]
    with pytest.raises(AttributeError):
        _ = MLAPrefillBackendEnum.NO


@pytest.mark.parametrize("name", ["not valid", "mro", "name", "get_path", "_x_", "__init__", ""])
def test_names_that_no_member_may_have(name):
    with pytest.raises(ValueError, match="Invalid or reserved backend name"):
        MLAPrefillBackendEnum.register(name, PATH)


def test_register():
    member = MLAPrefillBackendEnum.register("MINE", PATH)
    assert (member.name, member.value, member.get_path()) == ("MINE", PATH, PATH)
    assert member is MLAPrefillBackendEnum.MINE is MLAPrefillBackendEnum["MINE"]
    assert not member.is_overridden()
    assert member.get_class() is Plain
    with pytest.raises(ValueError, match=r"MINE already exists in MLAPrefillBackendEnum\. Use"):
        MLAPrefillBackendEnum.register("MINE", "other.Class")


def test_register_by_name_and_path():
    assert register_mla_prefill_backend("MINE", PATH)(Second) is Second
    member = MLAPrefillBackendEnum.MINE
    assert member.is_overridden() and member.get_class() is Plain
    member.clear_override()
    assert not member.is_overridden() and member.get_path() == PATH


def test_register_local_class():
    @register_mla_prefill_backend(MLAPrefillBackendEnum.CUSTOM)
    class Local(Plain):
        pass

    assert MLAPrefillBackendEnum.CUSTOM.get_class() is Local
    assert MLAPrefillBackendEnum.CUSTOM.get_path() == f"{__name__}.{Local.__qualname__}"
    MLAPrefillBackendEnum.CUSTOM.clear_override()
    for question in (MLAPrefillBackendEnum.CUSTOM.get_path, MLAPrefillBackendEnum.CUSTOM.get_class):
        with pytest.raises(ValueError, match="CUSTOM must be registered before use"):
            question()


def test_last_override_wins():
    for backend in (Plain, Second, Plain):
        register_mla_prefill_backend(MLAPrefillBackendEnum.CPU)(backend)
        assert MLAPrefillBackendEnum.CPU.get_class() is backend
    MLAPrefillBackendEnum.CPU.clear_override()
    assert MLAPrefillBackendEnum.CPU.get_class() is CPUSDPAMLAPrefillBackend


def test_missing_class():
    register_mla_prefill_backend(MLAPrefillBackendEnum.CPU, "no.such.module.Class")
    with pytest.raises(ImportError):
        MLAPrefillBackendEnum.CPU.get_class()
    register_mla_prefill_backend(MLAPrefillBackendEnum.CPU, f"{__name__}.Nothing")
    with pytest.raises(AttributeError):
        MLAPrefillBackendEnum.CPU.get_class()


def test_members_that_others_register_and_remove():
    _core.register_backend("ELSEWHERE", PATH, None, None)
    assert MLAPrefillBackendEnum.ELSEWHERE.value == PATH
    assert len(list(MLAPrefillBackendEnum)) == 9
    _core.remove_backend("ELSEWHERE")
    assert "ELSEWHERE" not in MLAPrefillBackendEnum.__members__
    assert not hasattr(MLAPrefillBackendEnum, "ELSEWHERE")
    MLAPrefillBackendEnum.register("ELSEWHERE", PATH)


def test_removed_names_are_free_again():
    for value in (PATH, "other.Class", PATH):
        member = MLAPrefillBackendEnum.register("AGAIN", value)
        assert MLAPrefillBackendEnum["AGAIN"] is member and member.value == value
        assert [member.name for member in MLAPrefillBackendEnum][8:] == ["AGAIN"]
        remove_mla_prefill_backend(member if value == PATH else "AGAIN")
        # Not looked at in between.
    assert "AGAIN" not in MLAPrefillBackendEnum.__members__ and len(MLAPrefillBackendEnum) == 8


def test_no_path_is_no_class():
    with pytest.raises(ValueError, match="class_path = ''"):
        register_mla_prefill_backend("MINE", "")
    assert "MINE" not in MLAPrefillBackendEnum.__members__


def test_what_cannot_be_removed():
    with pytest.raises(ValueError, match="CPU"):
        remove_mla_prefill_backend(MLAPrefillBackendEnum.CPU)
    with pytest.raises(ValueError, match="GONE"):
        remove_mla_prefill_backend("GONE")


def test_removed_class_serves_its_objects():
    @register_mla_prefill_backend("SHORT")
    class Short(CPUSDPAMLAPrefillBackend):
        pass

    backend = MLAPrefillBackendEnum.SHORT.get_class()(**Problem([3]).arguments)
    remove_mla_prefill_backend("SHORT")
    with pytest.raises(ValueError, match="Unknown MLA prefill backend: 'SHORT'"):
        MLAPrefillBackendEnum["SHORT"]
    backend.prepare_metadata(PrefillMetadata(query_start_loc=[0, 3]))
    problem = Problem([3])
    problem.check(backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, False))


@pytest.mark.parametrize("text", ["N\0L", "CPU\0", "\0", "\ud800"])
def test_names_that_c_would_cut(text):
    members = MLAPrefillBackendEnum
    for call in (
        lambda: register_mla_prefill_backend(text, PATH),
        lambda: register_mla_prefill_backend("MINE", text),
        lambda: members.register(text, PATH),
        lambda: members.register("MINE", text),
        lambda: members[text],
        lambda: remove_mla_prefill_backend(text),
        lambda: mla_prefill.get_mla_prefill_backend(mla_prefill.MLAPrefillConfig(backend=text)),
        lambda: _core.Backend(text, **Problem([3]).arguments, ignore_override=False),
    ):
        with pytest.raises(ValueError, match="NUL inside|UTF-8 lacks"):
            call()
    assert len(members) == 8
    # What a class calls itself stays in its own language.
    with pytest.raises(ValueError, match="backend_name"):

        @register_mla_prefill_backend(members.CUSTOM)
        class Named(Plain):
            @staticmethod
            def get_name():
                return text


def test_override_that_derives_from_what_it_overrides():
    @register_mla_prefill_backend(MLAPrefillBackendEnum.FLASH_ATTN)
    class Counting(FlashAttnPrefillBackend):
        runs = 0

        def run_prefill_new_tokens(self, *args, **kwargs):
            type(self).runs += 1
            return super().run_prefill_new_tokens(*args, **kwargs)

    problem = Problem([5, 0, 9])
    backend = MLAPrefillBackendEnum.FLASH_ATTN.get_class()(**problem.arguments)
    backend.prepare_metadata(PrefillMetadata(query_start_loc=problem.queries))
    problem.check(*backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, True))
    assert Counting.runs == 1
    config = mla_prefill.MLAPrefillSelectorConfig("float32")
    assert Counting.validate_configuration(None, config) == []
    assert FlashAttnPrefillBackend.is_available()


def test_backends_table():
    rows = {row.name: row for row in backends()}
    assert rows["CPU"].is_valid and rows["CPU"].is_runnable and rows["CPU"].reasons == ()
    assert not rows["CUSTOM"].is_valid and rows["CUSTOM"].class_path is None
    register_mla_prefill_backend("MINE")(Plain)
    row = backends()[-1]
    assert (row.name, row.backend_name, row.class_path) == ("MINE", "PLAIN", PATH)
    assert row.is_dynamic and row.is_overridden and row.is_runnable


def test_refused_classes_are_let_go():
    class Late(Plain):
        pass

    decorate = register_mla_prefill_backend("LATE")
    remove_mla_prefill_backend("LATE")
    with pytest.raises(ValueError, match="Unknown MLA prefill backend: 'LATE'"):
        decorate(Late)
    late = weakref.ref(Late)
    del Late
    gc.collect()
    assert late() is None


def test_what_cannot_be_run_has_no_class():
    with pytest.raises(AttributeError, match="^no backend 'CUSTOM' is registered that can be run"):
        _ = registered.CUSTOM


def test_no_member_is_found_by_the_path_that_it_lacks():
    assert MLAPrefillBackendEnum.register("LATER", "").value == ""
    with pytest.raises(ValueError, match="'' is not a valid"):
        MLAPrefillBackendEnum("")


@pytest.mark.parametrize("thing", [len, "a.Class", None])
def test_only_classes_are_registered(thing):
    with pytest.raises(TypeError, match=f"^cls: must be a class, not {type(thing).__name__}"):
        register_mla_prefill_backend(MLAPrefillBackendEnum.CUSTOM)(thing)
