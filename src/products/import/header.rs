//! The title row of a file or sheet: which of its columns holds what.

use super::{error::import_error, options::UnknownColumns, place::cell_name};
use crate::{
    error::Result,
    products::files::{
        cells::{Cell, trim_blanks},
        columns::HEADER,
    },
};

/// Other titles of the columns of [`HEADER`], without regard to case: the names of the API.
const OTHER_TITLES: [&[&str]; HEADER.len()] = [&[], &[], &[], &["category_name"], &[], &["created_at"], &[]];
const MAX_TITLE_CHARACTERS: usize = 100;
/// Columns of an Excel sheet.
pub(crate) const MAX_COLUMNS: u32 = 16_384;
/// Separators of titles that were not split.
const SEPARATORS: [(char, &str); 4] = [('|', "|"), (';', ";"), ('\t', "a tab"), (',', ",")];

/// Returns the index into [`HEADER`] of a title.
pub(crate) fn column_of_title(title: &str) -> Option<usize> {
    let title = trim_blanks(title);
    let is_title = |known: &str| {
        // a no-break space stands for a space
        let characters = title.chars().map(|character| if character == '\u{a0}' { ' ' } else { character });
        characters
            .map(|character| character.to_ascii_lowercase())
            .eq(known.chars().map(|known| known.to_ascii_lowercase()))
    };
    (0..HEADER.len()).find(|index| is_title(HEADER[*index]) || OTHER_TITLES[*index].iter().any(|known| is_title(known)))
}

/// The cells of a title row.
#[derive(Default)]
pub(crate) struct TitleRow {
    /// The number of the row, from 1; 0 before the first title.
    pub(crate) row: u32,
    /// The column of the file, from 0, for each column of [`HEADER`].
    columns: [Option<u32>; HEADER.len()],
    /// The column after the last title.
    width: u32,
    first_unknown: Option<(u32, String)>,
    /// The second column with a title that occurs twice.
    duplicate: Option<(u32, usize)>,
    title_count: usize,
    /// The separator that an unknown title contains together with known titles.
    separator: Option<&'static str>,
}

impl TitleRow {
    /// Adds a cell that is not blank.
    pub(crate) fn add(&mut self, row: u32, column: u32, cell: &Cell<'_>) {
        self.row = row;
        self.width = self.width.max(column.saturating_add(1));
        self.title_count += 1;
        let text = title_text(cell);
        match column_of_title(&text) {
            Some(index) => {
                if self.columns[index].replace(column).is_some() {
                    self.duplicate.get_or_insert((column, index));
                }
            }
            None => self.add_unknown(column, &text),
        }
    }

    fn add_unknown(&mut self, column: u32, title: &str) {
        if self.first_unknown.is_none() {
            let has_titles = |separator: char| title.split(separator).filter_map(column_of_title).count() > 1;
            self.separator = SEPARATORS.iter().find(|(separator, _)| has_titles(*separator)).map(|(_, name)| *name);
            self.first_unknown = Some((column, title.chars().take(MAX_TITLE_CHARACTERS).collect()));
        }
    }

    /// Returns whether the row has a known title.
    pub(crate) fn is_known(&self) -> bool {
        self.columns.iter().any(Option::is_some)
    }

    /// Returns the first unknown title, or an empty text.
    pub(crate) fn first_unknown(&self) -> &str {
        self.first_unknown.as_ref().map_or("", |(_, title)| title)
    }

    /// Returns the columns. Fails for unknown and duplicate titles. `sheet` is `None` for a CSV file.
    pub(crate) fn finish(self, sheet: Option<&str>, unknown_columns: UnknownColumns) -> Result<Columns> {
        if let Some((column, index)) = self.duplicate {
            let place = cell_name(sheet, self.row, column);
            return Err(import_error(format!("{place}: the column \"{}\" occurs twice", HEADER[index])));
        }
        match &self.first_unknown {
            Some((column, title)) if unknown_columns == UnknownColumns::Refuse || !self.is_known() => {
                let place = cell_name(sheet, self.row, *column);
                Err(import_error(format!("{place}: the title \"{title}\" is unknown. {}", self.advice())))
            }
            _ if unknown_columns == UnknownColumns::Ignore => {
                Ok(Columns { columns: self.columns, ignored_width: self.width })
            }
            _ => Ok(Columns { columns: self.columns, ignored_width: 0 }),
        }
    }

    /// Returns what to do about an unknown title.
    fn advice(&self) -> String {
        let known = HEADER.join(", ");
        match self.separator {
            Some(separator) if self.title_count == 1 => {
                format!("The titles seem to be separated by {separator}. Separate them by commas, semicolons or tabs")
            }
            _ if self.is_known() => format!("The known titles are {known}. unknown_columns=ignore skips other columns"),
            _ => format!("The first row that is not empty must hold the titles: {known}"),
        }
    }
}

/// Returns the text that a spreadsheet shows for a title.
fn title_text(cell: &Cell<'_>) -> String {
    match cell {
        Cell::Text(text) => trim_blanks(text).to_owned(),
        Cell::Number(number) | Cell::Date(number) => number.to_string(),
        Cell::Unsupported => "(no text)".to_owned(),
        Cell::Unreadable(reason) => format!("({reason})"),
    }
}

/// What the columns of a table hold.
pub(crate) struct Columns {
    /// The column of the file, from 0, for each column of [`HEADER`].
    pub(crate) columns: [Option<u32>; HEADER.len()],
    /// Columns before this one are ignored if they are not in `columns`. A cell in a later column is an error, because
    /// the cells of its row may be displaced.
    ignored_width: u32,
}

impl Columns {
    /// Returns the index into [`HEADER`] of a column.
    pub(crate) fn index(&self, column: u32) -> Option<usize> {
        self.columns.iter().position(|mapped| *mapped == Some(column))
    }

    /// Returns whether the cells of a column that is not in `columns` are ignored.
    pub(crate) fn is_ignored(&self, column: u32) -> bool {
        column < self.ignored_width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_those_of_the_export_or_the_api() {
        for (title, column) in [
            ("ID", 0),
            ("\u{feff}id ", 0),
            ("NAME\u{a0}", 1),
            ("description", 2),
            ("Category", 3),
            ("category_name", 3),
            ("price", 4),
            ("created AT", 5),
            ("Created\u{a0}at", 5),
            ("created_at", 5),
            ("Tags", 6),
        ] {
            assert_eq!(column_of_title(title), Some(column), "{title:?}");
        }
        for title in ["", "category id", "created  at", "prices"] {
            assert_eq!(column_of_title(title), None, "{title:?}");
        }
    }

    #[test]
    fn columns_before_the_last_title_are_ignored_on_request() {
        for (unknown_columns, expected) in
            [(UnknownColumns::Ignore, [true, true, true, false]), (UnknownColumns::Refuse, [false; 4])]
        {
            let mut titles = TitleRow::default();
            titles.add(1, 1, &Cell::text("Name"));
            if unknown_columns == UnknownColumns::Ignore {
                titles.add(1, 3, &Cell::text("Colour"));
            }
            let columns = titles.finish(None, unknown_columns).unwrap_or_else(|_| panic!("one title is known"));
            assert_eq!([0, 2, 3, 4].map(|column| columns.is_ignored(column)), expected);
        }
    }
}
