//! `/admin/`: a page on which staff maintain the catalogue. It consists of the files in this directory, which are part of
//! the binary, and uses the public API only.

use crate::{
    app::App,
    error::Result,
    http::{
        Request, Response,
        static_asset::{HTML, SCRIPT, STYLE, StaticAsset},
    },
};

/// A file of the page.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: &'static str,
    media_type: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($path:literal $media_type:ident $name:literal)*) => {
        &[$(File { path: $path, media_type: $media_type, text: include_str!($name) }),*]
    };
}

/// The files of the page; the first one is the page itself.
pub(crate) static FILES: &[File] = files! {
    "/admin/" HTML "index.html"
    "/admin/style.css" STYLE "style.css"
    "/admin/app.js" SCRIPT "app.js"
    "/admin/dom.js" SCRIPT "dom.js"
    "/admin/events.js" SCRIPT "events.js"
    "/admin/import_view.js" SCRIPT "import_view.js"
    "/admin/names.js" SCRIPT "names.js"
    "/admin/names_view.js" SCRIPT "names_view.js"
    "/admin/navigation.js" SCRIPT "navigation.js"
    "/admin/paged_list.js" SCRIPT "paged_list.js"
    "/admin/product_filters.js" SCRIPT "product_filters.js"
    "/admin/product_form.js" SCRIPT "product_form.js"
    "/admin/products.js" SCRIPT "products.js"
    "/admin/session.js" SCRIPT "session.js"
    "/admin/text.js" SCRIPT "text.js"
    "/admin/virtual_table.js" SCRIPT "virtual_table.js"
};

impl File {
    /// Serves the file. `{base}` in the page stands for what precedes a path in a link.
    pub(crate) fn serve(&self, app: &App, request: &Request) -> Result<Response> {
        let build = || {
            let text = compact(self.text).replace("{base}", app.config.http.base_url());
            StaticAsset::text(self.media_type, text.as_bytes())
        };
        app.static_assets.get_or_build(self.path, build).serve(request)
    }
}

/// Returns a text without indentation and comment lines.
fn compact(text: &str) -> String {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}
