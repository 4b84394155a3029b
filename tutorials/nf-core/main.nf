process SCVISCTAB_ANNOTATE {
    tag "$meta.id"
    label 'process_medium'

    // There is no image yet: Wave builds one of environment.yml (`wave.strategy = 'conda'`).
    conda "${moduleDir}/environment.yml"

    input:
    tuple val(meta), path(query), val(symbol_col)
    val   model     // name of a ready-made model; [] if there is a folder
    path  model_dir // folder of a model of your own, or []

    output:
    tuple val(meta), path("${prefix}.h5ad")                  , emit: h5ad
    tuple val(meta), path("${prefix}.parquet")               , emit: obs
    tuple val(meta), path("${prefix}_annotation_columns.csv"), emit: columns
    tuple val(meta), path("${prefix}_summary.json")          , emit: summary
    tuple val("${task.process}"), val('scvi-sctab'), eval('scvi-sctab --version'), emit: versions_scvisctab, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def chosen = model_dir ? "./${model_dir}" : model
    def column = symbol_col == 'index' ? 'var_names' : symbol_col
    def genes = column ? "--gene-column '${column}'" : ''
    if ("${query}" == "${prefix}.h5ad") error "Input and output have the same name: set \"task.ext.prefix\""
    """
    scvi-sctab annotate \\
        ${query} \\
        --model ${chosen} \\
        --out . \\
        --prefix ${prefix} \\
        --columns nf-core \\
        --h5ad \\
        --threads ${task.cpus} \\
        ${genes} \\
        ${args}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.h5ad
    touch ${prefix}.parquet
    echo "obs_column,aggregatable" > ${prefix}_annotation_columns.csv
    echo "{}" > ${prefix}_summary.json
    """
}
