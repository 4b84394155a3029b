# Annotate counts from R by the command line, and join the labels by barcode.
#
# Rscript annotate_from_r.R COUNTS MODEL OUT
#
# COUNTS is a file that `scvi-sctab annotate` reads; from a Seurat object, write one by
#   anndataR::write_h5ad(anndataR::as_AnnData(object, x_mapping = "counts"), "query.h5ad")
# and from a SingleCellExperiment by
#   zellkonverter::writeH5AD(sce, "query.h5ad", X_name = "counts")

arguments <- commandArgs(trailingOnly = TRUE)
stopifnot(length(arguments) == 3)
counts <- arguments[1]
model <- arguments[2]
out <- arguments[3]

code <- system2("scvi-sctab", c("annotate", shQuote(counts), "-m", shQuote(model), "-o", shQuote(out)))
if (code != 0) stop("scvi-sctab ended with exit code ", code)

# Names of columns stay as they are, and barcodes become the names of rows.
annotations <- read.csv(file.path(out, "annotations.csv"), row.names = "barcode", check.names = FALSE)
annotations$novel <- annotations$novel == "True"
print(sort(table(annotations$label), decreasing = TRUE))

# Rows are matched by name, so that the order of cells does not matter.
join_labels <- function(cells, annotations) {
  missing <- setdiff(cells, rownames(annotations))
  if (length(missing)) stop(length(missing), " cells have no annotation, such as ", missing[1])
  annotations[cells, , drop = FALSE]
}

# Seurat:               object <- Seurat::AddMetaData(object, join_labels(colnames(object), annotations))
# SingleCellExperiment: colData(sce) <- cbind(colData(sce), join_labels(colnames(sce), annotations))
saveRDS(annotations, file.path(out, "annotations.rds"))
