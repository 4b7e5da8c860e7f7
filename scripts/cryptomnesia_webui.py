"""Cryptomnesia as an extension of AUTOMATIC1111's web UI, Forge and SD.Next: its hooks, passed on to the package.

docs/webui.md has a table of what each hook is for.
"""

from typing import Any

from modules import script_callbacks, scripts  # type: ignore[import-not-found]  # the web UI's

from cryptomnesia_webui import accordion, hooks, options, saving


class CryptomnesiaScript(scripts.Script):
    """Always on: off is one of its policies. One object serves all jobs, so what is known of a job lies on its `p`."""

    def title(self) -> str:
        return accordion.TITLE

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def after_component(self, component: Any, **kwargs: Any) -> None:
        accordion.note_size(component, kwargs.get("elem_id"))

    def ui(self, is_img2img: bool) -> list[Any]:
        components, fields = accordion.build(is_img2img)
        self.infotext_fields = fields
        self.paste_field_names = [key for _, key in fields]
        return components

    def process(self, p: Any, *args: Any) -> None:
        hooks.begin(p, args, img2img=bool(getattr(p, "init_images", None)))

    def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        hooks.before_reading(p, kwargs["batch_number"])

    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None:
        hooks.before_sampling(p, kwargs["x"], kwargs["c"])

    def postprocess_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        hooks.after_sampling(p, kwargs["batch_number"])

    def postprocess_batch_list(self, p: Any, pp: Any, *args: Any, **kwargs: Any) -> None:
        hooks.before_saving(p, pp, kwargs["batch_number"])

    def postprocess_image(self, p: Any, pp: Any, *args: Any) -> None:
        hooks.of_image(p)

    def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
        hooks.end(p, processed)


script_callbacks.on_ui_settings(options.register)
script_callbacks.on_before_ui(options.add_axes)
script_callbacks.on_image_saved(saving.saved)
