//! What an export shows: the products that a query selects, in a layout.

use std::borrow::Cow;

use crate::{
    error::Result,
    products::{
        fields::Fields,
        files::format::FileFormat,
        list::{params::ParamParser, query::ListQuery},
    },
};

const FORMAT: &str = "format";
const BOM: &str = "bom";

/// The layout of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) format: FileFormat,
    /// Whether the file begins with a byte order mark; of CSV only.
    pub(crate) has_bom: bool,
    /// The columns.
    pub(crate) fields: Fields,
}

/// The parameters of an export.
#[derive(Debug)]
pub(crate) struct ExportRequest {
    pub(crate) query: ListQuery,
    pub(crate) layout: Layout,
}

impl ExportRequest {
    /// Parses the parameters of a query. The default is XLSX with all products and columns.
    pub(crate) fn parse<'a>(params: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Result<Self> {
        let mut params = ParamParser::new(params, &[FORMAT, BOM]);
        let format = match params.single(FORMAT).as_deref() {
            None | Some("xlsx") => FileFormat::Xlsx,
            Some("csv") => FileFormat::Csv,
            Some(other) => {
                params.add_error(FORMAT, format!("\"{other}\" is not a valid choice."));
                // the format in which every parameter has an effect
                FileFormat::Csv
            }
        };
        let has_bom = params.boolean(BOM).unwrap_or(false);
        if has_bom && format != FileFormat::Csv {
            params.add_error(BOM, "Only a file with \"format=csv\" can have a byte order mark.");
        }
        let query = ListQuery::from_params(params)?;
        let layout = Layout { format, has_bom, fields: query.fields };
        Ok(Self { query, layout })
    }

    /// Returns the normalised query string, which equivalent requests share.
    pub(crate) fn text(&self) -> String {
        let mut text = form_urlencoded::Serializer::new(self.query.key());
        text.append_pair(FORMAT, self.layout.format.extension());
        if self.layout.has_bom {
            text.append_pair(BOM, "true");
        }
        text.finish()
    }
}
