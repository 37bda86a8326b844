//! References between the parts of a package (ECMA-376, part 2, 6.5).

use quick_xml::events::{BytesStart, Event};

use super::{
    package::{Package, normalize_part_name},
    part::{attribute, attribute_in_namespace},
};
use crate::{
    error::Result,
    products::import::{cancel::Limit, error::import_error},
};

/// Applies to each part other than sheets and shared strings.
pub(super) const PART_LIMIT: Limit = Limit { bytes: 4 << 20, exceeded: "The file contains a part larger than 4 MiB" };
/// Relationships of one part.
const MAX_RELATIONSHIPS: usize = 256;
/// Bytes of a sheet's name, of a relationship's id and of its target. Excel allows names of 31 characters.
const MAX_NAME_BYTES: usize = 1024;

/// The kinds of parts that the import reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Workbook,
    Worksheet,
    SharedStrings,
}

impl Kind {
    /// Returns the kind of a relationship type. Its last segment decides: the segments before it differ between strict
    /// and transitional files.
    fn of(relationship_type: &str) -> Option<Self> {
        match relationship_type.rsplit('/').next()? {
            "officeDocument" => Some(Self::Workbook),
            "worksheet" => Some(Self::Worksheet),
            "sharedStrings" => Some(Self::SharedStrings),
            _ => None,
        }
    }
}

/// A reference from one part to another.
struct Relationship {
    id: String,
    kind: Kind,
    /// The normalized name of the other part in the package.
    path: String,
}

/// The relationships of a part, in the order of the file; those of kinds that the import does not read are left out.
#[derive(Default)]
pub(super) struct Relationships(Vec<Relationship>);

impl Relationships {
    /// Reads the relationships of the part `source`. The empty name stands for the package itself.
    pub(super) fn read(package: &mut Package, source: &str) -> Result<Self> {
        let (folder, name) = source.rsplit_once('/').unwrap_or(("", source));
        let (mut relationships, mut count) = (Self::default(), 0);
        let Some(mut part) = package.part(&normalize_part_name(folder, &format!("_rels/{name}.rels")), PART_LIMIT)?
        else {
            return Ok(relationships);
        };
        loop {
            match part.next()? {
                Event::Eof => return Ok(relationships),
                Event::Start(element) if element.local_name().as_ref() == "Relationship" => {
                    count += 1;
                    if count > MAX_RELATIONSHIPS {
                        let message = format!("A part of the file has more than {MAX_RELATIONSHIPS} relationships");
                        return Err(import_error(message));
                    }
                    relationships.0.extend(Relationship::read(&element, folder)?);
                }
                _ => {}
            }
        }
    }

    /// Returns the path of the first relationship of a kind.
    pub(super) fn first(&self, kind: Kind) -> Option<&str> {
        self.0.iter().find(|relationship| relationship.kind == kind).map(|relationship| relationship.path.as_str())
    }

    /// Returns the path of the worksheet with this id. Of several relationships with one id, the last.
    pub(super) fn worksheet(&self, id: &str) -> Option<&str> {
        let relationship = self.0.iter().rev().find(|relationship| relationship.id == id)?;
        (relationship.kind == Kind::Worksheet).then_some(relationship.path.as_str())
    }
}

impl Relationship {
    /// Returns `None` for a kind that the import does not read. `folder` is that of the source.
    fn read(element: &BytesStart<'_>, folder: &str) -> Result<Option<Self>> {
        let Some(kind) = attribute(element, "Type")?.and_then(|value| Kind::of(&value)) else { return Ok(None) };
        let (id, target) = (name_attribute(element, "Id")?, name_attribute(element, "Target")?);
        let (Some(id), Some(target)) = (id, target) else { return Ok(None) };
        Ok(Some(Self { id, kind, path: normalize_part_name(folder, &target) }))
    }
}

/// Returns the value of an attribute that holds a name.
pub(super) fn name_attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>> {
    check_name(attribute(element, name)?)
}

/// Returns the id of the relationship that an element refers to.
pub(super) fn relationship_id(element: &BytesStart<'_>) -> Result<Option<String>> {
    check_name(attribute_in_namespace(element, "id")?)
}

fn check_name(value: Option<String>) -> Result<Option<String>> {
    if value.as_ref().is_some_and(|value| value.len() > MAX_NAME_BYTES) {
        return Err(import_error(format!("The file contains a name longer than {MAX_NAME_BYTES} bytes")));
    }
    Ok(value)
}
