// Loads a table with SheetJS or ExcelJS and saves it: `copy.cjs sheetjs|exceljs INPUT OUTPUT`. The packages are in the
// directory that NODE_PATH names.

const [library, source, target] = process.argv.slice(2);

function copyWithSheetJs() {
  const XLSX = require("xlsx");
  // dates stay serial numbers with their formats, as in the file; CSV is UTF-8 (65001), and its cells are texts
  const isCsv = source.endsWith(".csv");
  const book = XLSX.readFile(source, { cellNF: true, raw: isCsv, codepage: isCsv ? 65001 : undefined });
  XLSX.writeFile(book, target);
}

async function copyWithExcelJs() {
  const { Workbook } = require("exceljs");
  const book = new Workbook();
  await book.xlsx.readFile(source);
  await book.xlsx.writeFile(target);
}

if (library === "sheetjs") {
  copyWithSheetJs();
} else {
  copyWithExcelJs().catch((error) => {
    console.error(error);
    process.exit(1);
  });
}
